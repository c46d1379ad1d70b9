//! Every input that was kept for a fuzz target, and a bounded number of changed ones: what any
//! compiler can do. `scripts/fuzz` lets libFuzzer look for more.

mod fuzzing;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::{Path, PathBuf};

use fuzzing::TARGETS;

const CHANGED_INPUTS: usize = 200;
const MAX_SIZE: usize = 4096;

fn kept(name: &str) -> Vec<Vec<u8>> {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
    let places = ["corpus", "finds"].map(|place| fuzz.join(place).join(name));
    let files = places.iter().filter_map(|place| fs::read_dir(place).ok());
    let mut paths: Vec<PathBuf> = files
        .flatten()
        .map(|file| file.expect("a file").path())
        .collect();
    paths.sort();
    let inputs = paths.iter().map(|path| fs::read(path).expect("an input"));
    inputs.collect()
}

fn run(name: &str, input: &[u8]) {
    let target = AssertUnwindSafe(|| fuzzing::run(name, input));
    if let Err(panic) = catch_unwind(target) {
        eprintln!("target {name}, input {input:?}");
        resume_unwind(panic);
    }
}

/// A generator that gives the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 as usize % limit.max(1)
    }

    fn changed(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        let mut input = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(4) {
            let place = self.below(input.len());
            let other = &inputs[self.below(inputs.len())];
            let byte = [0, 1, 0x7f, 0x80, 0xff, self.below(256) as u8][self.below(6)];
            match self.below(6) {
                0 | 1 if !input.is_empty() => input[place] = byte,
                2 if !input.is_empty() => input[place] ^= 1 << self.below(8),
                3 => input.insert(place, byte),
                4 => input.truncate(place + 1),
                _ => {
                    input.truncate(place);
                    input.extend(&other[self.below(other.len()).min(other.len())..]);
                }
            }
        }
        input.truncate(MAX_SIZE);
        input
    }
}

#[test]
fn kept_inputs_do_what_they_must() {
    for (name, _) in TARGETS {
        let inputs = kept(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for input in inputs {
            run(name, &input);
        }
    }
}

#[test]
fn so_do_changed_ones() {
    for (name, _) in TARGETS {
        let inputs = kept(name);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for _ in 0..CHANGED_INPUTS {
            run(name, &random.changed(&inputs));
        }
    }
}
