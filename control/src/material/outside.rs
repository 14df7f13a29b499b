//! Secrets that are not in files: environment variables, and what commands print.
//!
//! Only a control process runs commands, and only those that whoever started the gateway has allowed:
//! specs come over the network, and must not be a way to run anything. The command line, which checks
//! specs too, and questions that change nothing make do with a stand-in ([`super::Material::pending`]).

use std::{
    collections::{BTreeMap, HashMap},
    io::Read,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, OnceLock, PoisonError, mpsc},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process_group};

use super::{Fault, keyring::MAX_SECRET};
use crate::spec::{Part, Secret, SecretCommand, Severity, Spec};

/// Longest that a command may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A command that failed is tried again after this, in seconds, or after its `refresh` if that is less.
const RETRY_S: i64 = 10;
/// How much of what a command complains of is read, in bytes, and shown, in characters.
const MAX_STDERR: u64 = 4 << 10;
const MAX_SHOWN: usize = 200;
/// Commands of a spec: all of them may run at once.
const MAX_COMMANDS: usize = 32;

/// What the control process knows of commands. There is one per process, as one command has one answer
/// whoever asks: a spec that is checked again must not run it again.
static COMMANDS: OnceLock<Commands> = OnceLock::new();

struct Commands {
    /// Programs that may be run, as specs call them.
    allowed: Vec<String>,
    taken: Mutex<HashMap<String, Taken>>,
}

/// What a command said.
#[derive(Clone)]
struct Taken {
    /// The last value; `None`: it has never given one.
    value: Option<Arc<[u8]>>,
    /// When it was last run, in seconds since the Unix epoch.
    at: i64,
    /// Why the last run failed.
    error: Option<String>,
}

/// Lets this process, a control process, run `allowed` for secrets.
pub fn allow(allowed: Vec<String>) {
    // Only the first counts: it is called once, at the start.
    _ = COMMANDS.set(Commands { allowed, taken: Mutex::default() });
    super::protos::reflection::enable();
}

/// The value of an environment variable of this process; `None`: it is not a control process.
///
/// # Errors
/// There is no such variable.
pub fn variable(name: &str) -> Option<Result<Arc<[u8]>, String>> {
    COMMANDS.get()?;
    Some(match std::env::var_os(name) {
        Some(value) => Ok(value.as_encoded_bytes().into()),
        None => {
            Err(format!("control has no environment variable {name}; it has that of `sluice up`"))
        }
    })
}

/// What a command said last; `None`: nothing yet.
pub fn said(command: &SecretCommand) -> Option<Arc<[u8]>> {
    let taken = COMMANDS.get()?.taken.lock().unwrap_or_else(PoisonError::into_inner);
    taken.get(&command.key())?.value.clone()
}

/// Whether one of `commands` should be run now.
pub fn is_due(commands: &Wanted, now: i64) -> bool {
    let Some(known) = COMMANDS.get() else { return false };
    let taken = known.taken.lock().unwrap_or_else(PoisonError::into_inner);
    commands.values().any(|(_, command)| due(taken.get(&command.key()), command, now))
}

fn due(taken: Option<&Taken>, command: &SecretCommand, now: i64) -> bool {
    let Some(Taken { at, error, .. }) = taken else { return true };
    let refresh = i64::from(command.refresh.seconds());
    let wait = if error.is_some() { refresh.min(RETRY_S) } else { refresh };
    // A clock that was set back must not keep it from ever running.
    !(*at..at.saturating_add(wait)).contains(&now)
}

/// Runs those of `commands` that are due, all at once, and forgets those of other specs that are long
/// over. The faults are those of all commands of the spec; with a value from before they are warnings.
pub fn run(commands: &Wanted, now: i64) -> Vec<Fault> {
    let Some(known) = COMMANDS.get() else { return Vec::new() };
    if let Some((field, command)) = commands.values().nth(MAX_COMMANDS) {
        return vec![Fault {
            severity: Severity::Error,
            code: "too-many-commands",
            field: field.clone(),
            value: command.to_string(),
            message: format!("there are more than {MAX_COMMANDS} commands for secrets in the spec"),
        }];
    }
    let wanted: Vec<&SecretCommand> = {
        let taken = known.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all = commands.values().map(|(_, command)| command);
        all.filter(|command| due(taken.get(&command.key()), command, now)).collect()
    };
    let results: Vec<Result<Vec<u8>, String>> = std::thread::scope(|scope| {
        let running: Vec<_> = wanted
            .iter()
            .map(|command| scope.spawn(move || judged(&command.command, &known.allowed, TIMEOUT)))
            .collect();
        let ended = running.into_iter().map(|thread| thread.join());
        ended.map(|result| result.unwrap_or_else(|_| Err("it could not be run".into()))).collect()
    });
    let mut taken = known.taken.lock().unwrap_or_else(PoisonError::into_inner);
    for (command, result) in wanted.into_iter().zip(results) {
        let entry =
            taken.entry(command.key()).or_insert(Taken { value: None, at: now, error: None });
        entry.at = now;
        match result {
            Ok(value) => (entry.value, entry.error) = (Some(value.into()), None),
            Err(error) => entry.error = Some(error),
        }
    }
    // An earlier spec may come back by a rollback; a day later its secrets are none of our business.
    taken.retain(|key, one| commands.contains_key(key) || now - one.at < 86_400);
    let fault = |(key, (field, command)): (&String, &(String, SecretCommand))| {
        let Taken { value, error, .. } = taken.get(key)?;
        Some(Fault {
            severity: if value.is_some() { Severity::Warning } else { Severity::Error },
            code: "failed-command",
            field: field.clone(),
            value: command.to_string(),
            message: error.clone()?,
        })
    };
    commands.iter().filter_map(fault).collect()
}

/// Commands by their keys, with the field of the first that names each.
pub type Wanted = BTreeMap<String, (String, SecretCommand)>;

/// The commands of a spec, which is not changed: only a walk that could change it finds them.
pub fn commands(spec: &mut Spec) -> Wanted {
    let mut found = Wanted::new();
    for (field, part) in spec.auth_parts_mut() {
        if let Part::Secret(Secret::Command(command), _) = part {
            let field = format!("{field}.command");
            found.entry(command.key()).or_insert_with(|| (field, command.clone()));
        }
    }
    found
}

fn judged(command: &[String], allowed: &[String], timeout: Duration) -> Result<Vec<u8>, String> {
    let program = command.first().map_or("", String::as_str);
    if !allowed.iter().any(|one| one == program) {
        return Err(format!(
            "{program} may not be run by this gateway; start it with `sluice up --secret-command {program}`"
        ));
    }
    output(command, timeout).map_err(|why| format!("{program} {why}"))
}

/// What a command prints, without the blanks around it. What it complains of is told by its first line.
fn output(command: &[String], timeout: Duration) -> Result<Vec<u8>, String> {
    let Some((program, arguments)) = command.split_first() else {
        return Err("is empty".into());
    };
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that what it has started ends with it.
        .process_group(0)
        .spawn()
        .map_err(|error| format!("cannot be started: {error}"))?;
    let begun = Instant::now();
    let stdout = reader(child.stdout.take(), MAX_SECRET + 1);
    let stderr = reader(child.stderr.take(), MAX_STDERR);
    let left = || timeout.saturating_sub(begun.elapsed());
    let read = stdout.recv_timeout(left());
    let too_much = read.as_ref().is_ok_and(|read| read.len() as u64 > MAX_SECRET);
    let status = loop {
        match child.try_wait() {
            Ok(Some(status)) => break Some(status),
            Ok(None) if left().is_zero() || too_much || read.is_err() => break None,
            Ok(None) => std::thread::sleep(Duration::from_millis(5)),
            Err(_) => break None,
        }
    };
    if status.is_none() {
        end(&mut child);
    }
    if too_much {
        return Err(format!("prints more than {MAX_SECRET} bytes"));
    }
    let (Some(status), Ok(secret)) = (status, read) else {
        return Err(format!("did not end within {} s", timeout.as_secs_f32()));
    };
    if !status.success() {
        let complaint = stderr.recv_timeout(Duration::from_millis(200)).unwrap_or_default();
        let complaint = first_line(&complaint);
        return Err(match complaint.is_empty() {
            true => format!("failed ({status})"),
            false => format!("failed ({status}): {complaint}"),
        });
    }
    match secret.trim_ascii() {
        [] => Err("printed nothing".into()),
        secret => Ok(secret.to_vec()),
    }
}

/// Reads a stream to its end or to `limit`, on a thread that is left alone if somebody holds it open.
fn reader(stream: Option<impl Read + Send + 'static>, limit: u64) -> mpsc::Receiver<Vec<u8>> {
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            // What came until an error is all there is.
            _ = stream.take(limit).read_to_end(&mut bytes);
        }
        // Nobody may be waiting any more.
        _ = tell.send(bytes);
    });
    told
}

/// Ends the command and all of its group.
fn end(child: &mut Child) {
    if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
        // It may just have ended by itself.
        _ = kill_process_group(group, Signal::KILL);
    }
    _ = child.wait();
}

fn first_line(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    line.chars().filter(|c| !c.is_control()).take(MAX_SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Result<String, String> {
        let command = ["/bin/sh", "-c", script].map(String::from);
        let allowed = ["/bin/sh".to_owned()];
        let output = judged(&command, &allowed, Duration::from_secs(5))?;
        Ok(String::from_utf8(output).unwrap())
    }

    #[test]
    fn a_secret_is_what_is_printed() {
        assert_eq!(sh("echo ' a secret '").as_deref(), Ok("a secret"));
        assert_eq!(sh("printf x; echo not this >&2").as_deref(), Ok("x"));
        assert_eq!(sh("cat; echo no input").as_deref(), Ok("no input"));
    }

    #[test]
    fn failures_say_why_and_never_the_secret() {
        let failed = |script: &str| sh(script).unwrap_err();
        let error =
            failed("echo the-secret; echo; echo 'permission denied' >&2; echo more >&2; exit 3");
        assert!(error.contains("/bin/sh failed") && error.contains("permission denied"), "{error}");
        assert!(!error.contains("the-secret") && !error.contains("more"), "{error}");
        assert!(failed("exit 1").contains("failed"));
        assert!(failed("true").contains("printed nothing"));
        assert!(failed("head -c 70000 /dev/zero").contains("more than"));
        let missing = judged(&["/nonexistent".into()], &["/nonexistent".into()], TIMEOUT);
        assert!(missing.unwrap_err().contains("cannot be started"));
    }

    #[test]
    fn only_what_is_allowed_is_run() {
        let file = std::env::temp_dir().join(format!("sluice-ran-{}", std::process::id()));
        let command = ["touch".to_owned(), file.display().to_string()];
        let error =
            judged(&command, &["vault".into(), "/usr/bin/touch".into()], TIMEOUT).unwrap_err();
        assert!(error.contains("--secret-command touch"), "{error}");
        assert!(!file.exists());
    }

    #[test]
    fn a_command_that_hangs_is_ended_with_all_it_has_started() {
        let file = std::env::temp_dir().join(format!("sluice-late-{}", std::process::id()));
        let script = format!("(sleep 0.7; touch {}) & sleep 100", file.display());
        let command = ["/bin/sh".into(), "-c".into(), script];
        let error = output(&command, Duration::from_millis(100)).unwrap_err();
        assert!(error.contains("did not end"), "{error}");
        std::thread::sleep(Duration::from_secs(1));
        assert!(!file.exists(), "what it had started lived on");
    }

    /// Not in a control process, and so not while a spec is checked.
    #[test]
    fn a_check_runs_nothing() {
        let file = std::env::temp_dir().join(format!("sluice-check-{}", std::process::id()));
        let text = format!(
            "version: 1
listeners: [{{name: web, listen: ':8080'}}]
upstreams: [{{name: a, targets: ['a:1']}}]
authenticators: [{{name: signed, signature: {{}}}}]
consumers:
  - name: one
    signing_keys:
      - {{id: k1, secret: {{command: [touch, {}], refresh: 1m}}}}
      - {{id: k2, secret: {{env: SLUICE_NO_SUCH_VARIABLE}}}}
routes: [{{name: r, upstream: a, auth: signed}}]
",
            file.display()
        );
        let directory = std::path::Path::new("/");
        let checked = crate::fit::load("t.yaml", text.as_bytes(), Some(directory), |_| Ok(()));
        let mut whole = checked.whole.unwrap_or_else(|| panic!("{:?}", checked.problems));
        assert!(whole.material.is_pending(), "it must never be published");
        let commands = commands(&mut whole.spec);
        let fields: Vec<&String> = commands.values().map(|(field, _)| field).collect();
        assert_eq!(fields, ["consumers[0].signing_keys[0].secret.command"]);
        assert!(!is_due(&commands, 0) && run(&commands, 0).is_empty());
        assert!(!file.exists());
    }

    #[test]
    fn when_commands_are_due() {
        let command = SecretCommand { command: vec!["a".into()], refresh: "5m".parse().unwrap() };
        let taken = |at, failed: bool| Taken { value: None, at, error: failed.then(String::new) };
        assert!(due(None, &command, 0));
        for (failed, now, is) in [
            (false, 1_000, false),
            (false, 1_299, false),
            (false, 1_300, true),
            (false, 999, true),
            (true, 1_009, false),
            (true, 1_010, true),
        ] {
            assert_eq!(due(Some(&taken(1_000, failed)), &command, now), is, "{failed} {now}");
        }
    }
}
