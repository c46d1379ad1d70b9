"""The pictures in docs/monitoring.md, of real daemons and a real Prometheus.

`python -m tests.watch.pictures docs 90` (as root) lets things happen for 90 seconds, then writes
dashboard.png and top.png into `docs`.
"""

import asyncio
import sys
import time
from pathlib import Path

from tests.testbed.bed import Testbed
from tests.watch.draw_dashboard import draw_dashboard
from tests.watch.draw_terminal import draw_terminal
from tests.watch.prometheus import Prometheus
from tests.watch.scene import METRICS, Scene
from wgd.ctl.session import Session
from wgd.ctl.top.app import TopApp
from wgd.ctl.top.sources import Reader

BRANCHES = 5
TOP_SECONDS = 20


def main(directory: Path, seconds: float) -> None:
    """Draw both."""
    with Testbed(show_logs=False, environment={"WGD_METRICS": METRICS}) as bed:
        scene = Scene(bed, BRANCHES)
        left = scene.tunnel.left
        with Prometheus(left.namespace, bed.directory, METRICS) as prometheus:
            prometheus.wait_until_scraping()
            started = time.time()
            while time.time() < started + seconds:
                scene.go_on(megabytes=20 if (time.time() - started) % 30 < 20 else 2)
                time.sleep(0.2)
            draw_dashboard(prometheus, started, time.time(), directory / "dashboard.png")
        asyncio.run(_draw_top(scene, directory / "top.png"))


async def _draw_top(scene: Scene, path: Path) -> None:
    reader = Reader(Session(None, (), {"HOME": "/"}), [scene.tunnel.left.daemon.interface])
    app = TopApp(reader.read, 1.0)
    is_over = False

    def keep_busy() -> None:
        megabytes = 1
        while not is_over:
            scene.go_on(megabytes, with_trouble=False)
            megabytes = (megabytes + 23) % 90 + 1
            time.sleep(0.1)

    async with app.run_test(size=(80, 24)) as pilot:
        traffic = asyncio.create_task(asyncio.to_thread(keep_busy))
        await asyncio.sleep(TOP_SECONDS)
        await pilot.press("end", "up")  # the one that does not answer
        await pilot.pause(1.5)
        draw_terminal(app, path)
        is_over = True
        await traffic


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]))
