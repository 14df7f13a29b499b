//! jq programs, by the crate jaq. They see their input and nothing else: what reads files, the environment,
//! further input or a log is not there.

use jaq_core::data::JustLut;
use jaq_core::load::{self, Arena, File, Loader};
use jaq_core::{Compiler, Ctx, Filter, Vars, unwrap_valr};
use jaq_json::write::Pp;
use jaq_json::{Val, read, write};

use crate::limits;

/// Filters that are not there: they reach out of the program, or end the process.
const WITHOUT: [&str; 9] = [
    "env",
    "halt",
    "halt_error",
    "debug",
    "debug_empty",
    "stderr",
    "stderr_empty",
    "localtime",
    "strflocaltime",
];

/// A compiled program.
pub struct Program(Filter<JustLut<Val>>);

/// Why a program gave no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failed {
    /// What the program says itself, or what it cannot do with its input.
    Error(String),
    /// What it gives is too large.
    TooLarge,
}

impl Program {
    /// # Errors
    /// What is wrong with the text, for people.
    pub fn compile(text: &str) -> Result<Program, String> {
        if text.len() > limits::JQ_PROGRAM {
            return Err(format!("a program has at most {} bytes", limits::JQ_PROGRAM));
        }
        let defs = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
        let defs = defs.filter(|def| !WITHOUT.contains(&def.name));
        let funs = jaq_core::funs().chain(jaq_std::funs()).chain(jaq_json::funs());
        let funs = funs.filter(|(name, ..)| !WITHOUT.contains(name));
        let arena = Arena::default();
        // Modules are refused: this loader reads none.
        let modules = Loader::new(defs).load(&arena, File { code: text, path: () });
        let modules = modules.map_err(|errors| unreadable(text, errors))?;
        let filter = Compiler::default().with_funs(funs).compile(modules).map_err(|errors| {
            let first = errors.into_iter().flat_map(|(_, list)| list).next();
            match first {
                Some((name, what)) => format!("there is no {} `{name}` here", what.as_str()),
                None => "it cannot be compiled".into(),
            }
        })?;
        Ok(Program(filter))
    }

    /// The one value that the program makes of `input`; null if it makes none. At most `most` bytes.
    ///
    /// # Errors
    /// See [`Failed`].
    pub fn run(&self, input: &[u8], most: usize) -> Result<Vec<u8>, Failed> {
        let input = read::parse_single(input).map_err(|error| Failed::Error(error.to_string()))?;
        let context = Ctx::<JustLut<Val>>::new(&self.0.lut, Vars::new([]));
        let mut values = self.0.id.run((context, input)).map(unwrap_valr);
        let value = match values.next() {
            Some(value) => value.map_err(|error| Failed::Error(error.to_string()))?,
            None => return Ok(b"null".to_vec()),
        };
        if values.next().is_some() {
            let several = "it gives more than one value; collect them with [ ]";
            return Err(Failed::Error(several.into()));
        }
        let mut out = Bounded { out: Vec::new(), most };
        write::write(&mut out, &Pp::default(), 0, &value).map_err(|_| Failed::TooLarge)?;
        Ok(out.out)
    }
}

fn unreadable(text: &str, errors: load::Errors<&str, ()>) -> String {
    let place = |part: &str| format!("at byte {}", load::span(text, part).start);
    match errors.into_iter().next().map(|(_, error)| error) {
        Some(load::Error::Io(list)) => {
            let first = list.first().map_or("", |(_, problem)| problem);
            format!("modules cannot be used ({first})")
        }
        Some(load::Error::Lex(list)) => {
            let first = list.first();
            let (expected, at) = first.map_or(("a token", ""), |(what, at)| (what.as_str(), *at));
            format!("expected {expected} {}", place(at))
        }
        Some(load::Error::Parse(list)) => {
            let first = list.first();
            let (expected, at) = first.map_or(("a term", ""), |(what, at)| (what.as_str(), *at));
            format!("expected {expected} {}", place(at))
        }
        None => "it cannot be read".into(),
    }
}

/// Output up to a bound.
struct Bounded {
    out: Vec<u8>,
    most: usize,
}

impl std::io::Write for Bounded {
    fn write(&mut self, data: &[u8]) -> std::io::Result<usize> {
        if self.out.len() + data.len() > self.most {
            return Err(std::io::ErrorKind::StorageFull.into());
        }
        self.out.extend_from_slice(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(program: &str, input: &str) -> Result<String, Failed> {
        let program = Program::compile(program).unwrap();
        program.run(input.as_bytes(), 1_000).map(|out| String::from_utf8(out).unwrap())
    }

    #[test]
    fn programs_make_values() {
        assert_eq!(run(".a", r#"{"a":1234567890123456789012}"#).unwrap(), "1234567890123456789012");
        assert_eq!(
            run(".", r#"{"b":1.10,"a":[1e400,"é"]}"#).unwrap(),
            r#"{"b":1.10,"a":[1e400,"é"]}"#
        );
        assert_eq!(
            run("[.[] | {id, n: (.n + 1)}]", r#"[{"id":1,"n":2,"x":3}]"#).unwrap(),
            r#"[{"id":1,"n":3}]"#
        );
        assert_eq!(run("map(select(.ok)) | length", r#"[{"ok":true},{}]"#).unwrap(), "1");
        assert_eq!(run("empty", "1").unwrap(), "null");
        assert_eq!(
            run(r#"if test("^a+$") then ascii_upcase else . end"#, r#""aa""#).unwrap(),
            r#""AA""#
        );
        assert_eq!(
            run("to_entries | map(.key) | join(\",\")", r#"{"x":1,"y":2}"#).unwrap(),
            r#""x,y""#
        );
    }

    #[test]
    fn what_fails_says_why() {
        assert!(
            matches!(run("1, 2", "0"), Err(Failed::Error(text)) if text.contains("more than one"))
        );
        assert!(matches!(run(".a", "[1]"), Err(Failed::Error(_))));
        assert_eq!(run(r#"error("no")"#, "0"), Err(Failed::Error("\"no\"".into())));
        assert_eq!(run("[range(10000)]", "0"), Err(Failed::TooLarge));
        assert!(matches!(run(".", "{"), Err(Failed::Error(_))));
    }

    #[test]
    fn programs_see_nothing_but_their_input() {
        for program in [
            "env",
            "$ENV",
            "$ENV.PATH",
            "input",
            "inputs",
            "halt",
            "halt_error",
            "debug",
            "stderr",
            "input_filename",
            r#"import "x" as x; 1"#,
            r#"include "/etc/passwd"; 1"#,
            "$__prog_args",
            "get_search_list",
            "localtime",
        ] {
            assert!(Program::compile(program).is_err(), "{program}");
        }
        for program in [".a |", "(", "\"", "foo", "$x", "1 2", ".[", "{a:"] {
            assert!(Program::compile(program).is_err(), "{program}");
        }
        assert!(Program::compile(&"1".repeat(limits::JQ_PROGRAM + 1)).is_err());
    }

    /// An overflow would end this process.
    #[test]
    fn the_stack_is_deep_enough_for_any_program() {
        let n = limits::JQ_PROGRAM;
        let programs = [
            "-".repeat(n - 1) + "1",
            "(".repeat(n / 2 - 1) + "1" + &")".repeat(n / 2 - 1),
            "[".repeat(n / 2 - 1) + &"]".repeat(n / 2 - 1),
            "{a:".repeat(n / 4 - 1) + "1" + &"}".repeat(n / 4 - 1),
            "1|".repeat(n / 2 - 1) + "1",
            "try ".repeat(n / 4 - 1) + "1",
            "\"\\(".repeat(n / 6) + "1" + &")\"".repeat(n / 6),
        ];
        for program in programs {
            let short: String = program.chars().take(10).collect();
            let compile = move || Program::compile(&program).is_ok();
            let thread = std::thread::Builder::new().stack_size(limits::JQ_STACK).spawn(compile);
            assert!(thread.unwrap().join().unwrap(), "{short}");
        }
    }
}
