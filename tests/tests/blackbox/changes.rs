//! The command line that changes what runs, writes it out, and brings in what others had.

use tests::process::{self, cli};
use tests::scratch::Scratch;
use tests::spec::Spec;
use tests::{Gateway, Origin, get};

/// On a terminal people see the change and are asked; `script` makes one.
#[test]
fn on_a_terminal_people_are_asked() {
    let origin = Origin::echo();
    let spec = Spec::to(origin.address());
    let mut gateway = Gateway::of(&spec);
    let admin = gateway.admin_address();
    let next = spec.clone().route("rewrite: { replace_prefix: /next }").text();
    let next = gateway.spec_file("next.yaml", &next).display().to_string();
    let ask = |command: &str, answer: &str| {
        let line = format!("{} {command} --admin {admin}", process::sluice_binary().display());
        let shell = format!("echo '{answer}' | script -qec \"{line}\" /dev/null");
        let output = std::process::Command::new("sh").args(["-c", &shell]).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let apply = format!("apply -f {next}");
    let (code, shown) = ask(&apply, "n");
    assert_eq!(code, Some(1), "{shown}");
    assert!(shown.contains("Apply? [y/N]") && shown.contains("/next"), "{shown}");
    assert!(shown.contains("nothing was changed"), "{shown}");
    assert_eq!(gateway.ask(get("/x")).text(), "GET /x\n");
    let (code, shown) = ask(&apply, "y");
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(gateway.ask(get("/x")).text(), "GET /next/x\n");
    let (code, shown) = ask(&apply, "");
    assert_eq!(code, Some(0), "there is nothing to ask: {shown}");
    assert!(shown.contains("nothing to change"), "{shown}");
    let (code, shown) = ask("rollback", "yes");
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("Roll back? [y/N]") && shown.contains("/next"), "{shown}");
    assert_eq!(gateway.ask(get("/x")).text(), "GET /x\n");
}

#[test]
fn what_is_exported_can_be_applied_again() {
    let origin = Origin::echo();
    let secret = "signing-secret-of-at-least-32-bytes";
    let plain = Spec::to(origin.address());
    let spec = plain
        .clone()
        .also("authenticators: [ { name: signed, signature: {} } ]")
        .also(&format!(
            "consumers: [ {{ name: one, signing_keys: [ {{ id: k, secret: {{ inline: {secret} }} }} ] }} ]"
        ))
        .route("auth: { any: [ signed ] }");
    let mut gateway = Gateway::of(&plain);
    let admin = gateway.admin_address();
    let state = gateway.dir().join("state").display().to_string();
    let run = |args: &[&str]| cli(&[args, &["--admin", &admin]].concat());
    for format in ["yaml", "json"] {
        let outcome = run(&["export", "--format", format]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        let file = gateway.spec_file("again", &outcome.stdout).display().to_string();
        let outcome = run(&["diff", "-f", &file, "--exit-code"]);
        assert_eq!(outcome.code, Some(0), "{format}: {outcome:?}");
    }
    let file = gateway.spec_file("secret.yaml", &spec.text()).display().to_string();
    assert_eq!(run(&["apply", "-f", &file, "--yes"]).code, Some(0));
    let outcome = run(&["export"]);
    assert_eq!(outcome.code, Some(1), "{outcome:?}");
    assert!(outcome.stderr.contains("consumers[0].signing_keys[0].secret.inline"), "{outcome:?}");
    let outcome = run(&["export", "--redacted"]);
    assert!(outcome.code == Some(0) && outcome.stdout.contains("[redacted]"), "{outcome:?}");
    assert_eq!(run(&["export", "--revision", "1"]).code, Some(0));
    let outcome = cli(&["export", "--offline", "--state", &state]);
    assert!(outcome.code == Some(0) && outcome.stdout.contains(secret), "{outcome:?}");
}

#[test]
fn imports_pass_the_checker() {
    let fixtures = concat!(env!("CARGO_MANIFEST_DIR"), "/../control/src/import/tests");
    let scratch = Scratch::new();
    for (kind, file) in
        [("openapi", "petstore.yaml"), ("kong", "kong.yaml"), ("nginx", "nginx.conf")]
    {
        let output = scratch.path().join(kind).display().to_string();
        let outcome = cli(&["import", kind, &format!("{fixtures}/{file}"), "-o", &output]);
        assert_eq!(outcome.code, Some(0), "{outcome:?}");
        assert!(outcome.stderr.contains(&format!("{file}:")), "warnings have places: {outcome:?}");
        assert_eq!(cli(&["check", &output]).code, Some(0), "{kind}");
    }
}
