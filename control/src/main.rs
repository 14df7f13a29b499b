#![forbid(unsafe_code)]

#[allow(dead_code)]
mod check;
#[allow(dead_code)]
mod compile;
#[allow(dead_code)]
mod diff;
#[allow(dead_code, unused_imports)]
mod spec;

fn main() {}
