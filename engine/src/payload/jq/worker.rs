//! What a worker does: it reads programs and their input from its standard input, which is a socket, and
//! writes what comes of them back.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;

use rustix::process::{Resource, Rlimit, getppid, setrlimit};
use rustix::thread::{Timespec, nanosleep};

use super::program::{Failed, Program};
use crate::limits;

/// Serves until the engine has ended, or has no more use for this worker.
pub fn work() {
    let bound = |bytes: u64| Rlimit { current: Some(bytes), maximum: Some(bytes) };
    // Without these a program could take all memory: rather no worker at all.
    if setrlimit(Resource::Data, bound(limits::JQ_MEMORY)).is_err()
        || setrlimit(Resource::Core, bound(0)).is_err()
    {
        return;
    }
    contract::background::give_way(NICE);
    let parent = getppid();
    // A program that never ends does not see that the engine has.
    let watch = std::thread::Builder::new().stack_size(64 * 1024).spawn(move || {
        while getppid() == parent {
            let _ = nanosleep(&Timespec { tv_sec: 1, tv_nsec: 0 });
        }
        std::process::exit(0);
    });
    let serving = std::thread::Builder::new().stack_size(limits::JQ_STACK).spawn(serve);
    if let (Ok(_), Ok(serving)) = (watch, serving) {
        let _ = serving.join();
    }
}

/// How nice workers are, beside shards of 0.
const NICE: i32 = 10;

fn serve() {
    let Ok(wire) = std::io::stdin().as_fd().try_clone_to_owned() else { return };
    let mut wire = UnixStream::from(wire);
    let mut programs: HashMap<String, Program> = HashMap::new();
    while serve_one(&mut wire, &mut programs).is_ok() {}
}

fn serve_one(
    wire: &mut UnixStream,
    programs: &mut HashMap<String, Program>,
) -> std::io::Result<()> {
    let (mut program_len, mut input_len) = ([0; 4], [0; 4]);
    wire.read_exact(&mut program_len)?;
    wire.read_exact(&mut input_len)?;
    let read = |wire: &mut UnixStream, length: [u8; 4]| {
        let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
        wire.read_exact(&mut bytes).map(|()| bytes)
    };
    let text = String::from_utf8_lossy(&read(wire, program_len)?).into_owned();
    let input = read(wire, input_len)?;
    if !programs.contains_key(&text) {
        if programs.len() >= limits::JQ_PROGRAMS {
            programs.clear();
        }
        if let Ok(program) = Program::compile(&text) {
            programs.insert(text.clone(), program);
        }
    }
    let ran = match programs.get(&text) {
        Some(program) => program.run(&input, limits::JQ_OUTPUT),
        None => Err(Failed::Error("the program cannot be compiled".into())),
    };
    let (tag, out) = match ran {
        Ok(out) => (0, out),
        Err(Failed::Error(text)) => {
            let short: String = text.chars().take(limits::FAULT_TEXT).collect();
            (1, short.into_bytes())
        }
        Err(Failed::TooLarge) => (2, Vec::new()),
    };
    let mut told = Vec::with_capacity(5 + out.len());
    told.push(tag);
    told.extend_from_slice(&(out.len() as u32).to_le_bytes());
    told.extend_from_slice(&out);
    wire.write_all(&told)
}
