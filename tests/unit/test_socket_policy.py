"""Proves that the policy finds the container by whole names, and says what it looked for."""

from pathlib import Path

import pytest

from wgd.errors import WgdError
from wgd.uapi.socket_policy import (
    DEFAULT_BUNDLE_IDS,
    SYSTEM_DIRECTORY,
    SocketPlace,
    SocketPolicy,
    choose_place,
    container_in,
    container_of,
    home_directory,
)

APP = "com.wireguard.macos.network-extension"
DATA = Path(f"/Users/ada/Library/Containers/{APP}/Data")
SYSTEM = SocketPlace(Path("/var/run/wireguard"), is_sandbox=False)


def choose(
    policy: str,
    *,
    directory: Path | None = None,
    home: Path | None = None,
    bundle_ids: tuple[str, ...] = DEFAULT_BUNDLE_IDS,
) -> SocketPlace | None:
    return choose_place(SocketPolicy(policy), directory=directory, bundle_ids=bundle_ids, home=home)


def test_the_names_others_rely_on() -> None:
    assert [policy.value for policy in SocketPolicy] == ["auto", "system", "sandbox", "off"]
    assert Path("/var/run/wireguard") == SYSTEM_DIRECTORY
    assert DEFAULT_BUNDLE_IDS == ("com.wireguard.macos.network-extension",)


# -- choose_place ----------------------------------------------------------------------------------


@pytest.mark.parametrize("home", [DATA, DATA / "tmp", DATA / "Library" / "Caches" / "x"])
@pytest.mark.parametrize("policy", ["auto", "sandbox"])
def test_inside_a_container_it_is_the_container(policy: str, home: Path) -> None:
    assert choose(policy, home=home) == SocketPlace(DATA, is_sandbox=True)


@pytest.mark.parametrize("home", [None, Path("/root"), Path("/Users/ada"), DATA.parent])
def test_auto_elsewhere_is_the_system_directory(home: Path | None) -> None:
    assert choose("auto", home=home) == SYSTEM


@pytest.mark.parametrize("home", [None, Path("/root"), DATA])
def test_system_is_the_system_directory_even_in_a_container(home: Path | None) -> None:
    assert choose("system", home=home) == SYSTEM


@pytest.mark.parametrize("home", [None, DATA])
def test_an_explicit_directory_comes_first(home: Path | None) -> None:
    place = choose("auto", directory=Path("/srv/wg"), home=home)
    assert place == SocketPlace(Path("/srv/wg"), is_sandbox=False)


def test_an_explicit_directory_inside_a_container_is_a_sandbox() -> None:
    place = choose("auto", directory=DATA / "wg")
    assert place == SocketPlace(DATA / "wg", is_sandbox=True)


@pytest.mark.parametrize("policy", ["system", "sandbox"])
def test_an_explicit_directory_and_another_place_contradict(policy: str) -> None:
    with pytest.raises(WgdError, match=rf"{policy} and the directory /srv/wg contradict"):
        choose(policy, directory=Path("/srv/wg"), home=DATA)


@pytest.mark.parametrize("directory", [None, Path("/srv/wg")])
def test_off_is_nowhere(directory: Path | None) -> None:
    assert choose("off", directory=directory, home=DATA) is None


def test_sandbox_elsewhere_says_what_was_looked_for_and_found() -> None:
    with pytest.raises(WgdError) as caught:
        choose("sandbox", home=Path("/Users/ada"), bundle_ids=("org.one", "org.two"))
    message = str(caught.value)
    assert "Library/Containers/org.one or org.two/Data" in message
    assert "HOME is /Users/ada:" in message
    assert "--sandbox-bundle-id" in message
    with pytest.raises(WgdError, match="HOME is not set"):
        choose("sandbox")
    with pytest.raises(WgdError, match="Library/Containers/ID/Data"):
        choose("sandbox", home=DATA, bundle_ids=())


# -- containers ------------------------------------------------------------------------------------


def test_other_apps_are_found_by_their_bundle_id() -> None:
    other = Path("/Users/ada/Library/Containers/org.example.tunnel/Data")
    assert choose("auto", home=other) == SYSTEM
    place = choose("auto", home=other, bundle_ids=(APP, "org.example.tunnel"))
    assert place == SocketPlace(other, is_sandbox=True)


@pytest.mark.parametrize(
    "home",
    [
        f"/Users/{APP}",  # the substring that wireguard-go's patch looked for
        f"/Users/ada/Library/Containers/{APP}",
        f"/Users/ada/Library/Containers/{APP}.helper/Data",
        f"/Users/ada/Library/Containers/x{APP}/Data",
        f"/Users/ada/Library/Containers/{APP}/Data2",
        f"/Users/ada/Library/Group Containers/{APP}/Data",
        f"/Users/ada/Containers/{APP}/Data",
        f"/Users/ada/Library/Containers/x/{APP}/Data",
        f"/Users/ada/Library/Containers/{APP}/Data/../..",
    ],
)
def test_what_only_looks_like_a_container(home: str) -> None:
    assert container_of(Path(home), (APP,)) is None


def test_the_innermost_container_wins() -> None:
    inner = DATA / "Library" / "Containers" / "org.two" / "Data"
    assert container_of(inner / "tmp", (APP, "org.two")) == inner
    assert container_of(inner / "tmp", (APP,)) == DATA


def test_containers_in_a_home() -> None:
    assert container_in(Path("/Users/ada"), APP) == DATA
    assert container_of(container_in(Path("/"), "org.two"), ("org.two",)) is not None


@pytest.mark.parametrize("bundle_id", ["", ".", "..", "a/b", "/etc", "a\0b", "a\nb"])
def test_what_cannot_be_a_bundle_id(bundle_id: str) -> None:
    with pytest.raises(WgdError, match="not a bundle id"):
        container_in(Path("/Users/ada"), bundle_id)
    with pytest.raises(WgdError, match="not a bundle id"):
        choose("auto", bundle_ids=(APP, bundle_id))
    assert container_of(DATA, ("a/b", "..", "")) is None


# -- HOME ------------------------------------------------------------------------------------------


def test_home() -> None:
    assert home_directory({"HOME": "/Users/ada"}) == Path("/Users/ada")
    for home in ("", "relative", "~", ".", "/a\0b"):
        assert home_directory({"HOME": home}) is None
    assert home_directory({}) is None
