//! ```text
//!   the fuzzer's bytes  ->  tests_rs/operations.rs: a story that happens to two or three nodes
//! ```
//! The same stories that `make test` lives a few hundred of, led by what they reach in the code.

#![no_main]

use libfuzzer_sys::fuzz_target;

#[path = "../../tests_rs/operations.rs"]
mod operations;

fuzz_target!(|bytes: &[u8]| operations::run(bytes));
