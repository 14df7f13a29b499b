//! The control process: from its start to its end.

use std::{fs::File, io::Read, net::SocketAddr, os::fd::OwnedFd, path::PathBuf, sync::Arc};

use clap::Args;
use contract::{bus, segment::Segment, snapshot::Snapshot};
use rustix::process::Signal;
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
};

use crate::{
    access::{Gate, Principal},
    api,
    cli::{
        Failure, exit,
        keys::{ADMIN_PREFIX, new_key},
    },
    entry::EngineEntry,
    material,
    place::StateDirectory,
    publish::Publisher,
    records::Records,
    resolve::Resolver,
    running::{self, Change, LastRevision, Parts, Refused, Running},
    spec,
    store::Store,
    supervise::child::{follow_parent, inherited as inherited_fd, is_parent, stdin},
    tickets::Tickets,
};

/// How nice this process is, beside an engine of 0.
const NICE: i32 = 10;

/// Names of the environment by which control learns where the store is and what this node is called:
/// command lines can be read by everybody on the machine.
pub const STORE: &str = "SLUICE_STORE";
pub const NODE: &str = "SLUICE_NODE";

/// What the supervisor hands to control. The bus is its standard input.
#[derive(Debug, Args)]
pub struct Inherited {
    #[arg(long)]
    parent: u32,
    #[arg(long)]
    segment: i32,
    #[arg(long)]
    state: PathBuf,
    /// The spec given to `up`; only for the first control process.
    #[arg(long, requires = "spec_name")]
    spec: Option<i32>,
    #[arg(long)]
    spec_name: Option<String>,
    /// An earlier control process has published: the supervisor says what.
    #[arg(long)]
    resume: bool,
    /// What may be run for secrets.
    #[arg(long = "secret-command")]
    secret_commands: Vec<String>,
}

/// Runs the control process until the supervisor ends it.
pub fn control(inherited: Inherited, engine: EngineEntry) -> Result<(), Failure> {
    follow_parent(inherited.parent, Signal::TERM, c"sluice-control")?;
    // The shards go first: a change may wait, requests should not.
    contract::background::give_way(NICE);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(4)
        .build()?;
    let result = runtime.block_on(serve(inherited, engine));
    // A DNS look-up or a disk that hangs must not hold up the end.
    runtime.shutdown_background();
    result
}

async fn serve(inherited: Inherited, engine: EngineEntry) -> Result<(), Failure> {
    let mut hang_up = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let state = StateDirectory::at(&inherited.state);
    let segment = Arc::new(Segment::open(inherited_fd(inherited.segment, true)?)?);
    let (publisher, mut stop, last) =
        Publisher::connect(stdin()?, Arc::clone(&segment), inherited.resume)?;
    let last = last.and_then(last_snapshot);

    material::allow_commands(inherited.secret_commands.clone());
    let said = |name| std::env::var(name).ok().filter(|text| !text.is_empty());
    let store = match said(STORE) {
        Some(url) => Store::database(&url)?,
        None => Store::file(&state.store()),
    };
    let name = match said(NODE) {
        Some(name) => name,
        None => state.node_name()?,
    };
    let kept = LastRevision::at(state.last_revision());
    let chosen =
        running::choose((&store, &name), first(&inherited)?, last.as_ref(), &kept, engine.check)
            .await
            .map_err(refused)?;
    let (listener, admin) = listen(chosen.1.spec.admin.listen).await?;
    let records = Records::start(&segment, state.access_log())?;
    let resolver = Resolver::system();
    let names = resolver.clone();
    let tickets = Tickets::new(state.ticket_keys());
    let cookies = Tickets::of_cookies(state.cookie_keys());
    let parts = Parts {
        store,
        resolver,
        publisher,
        records,
        segment,
        engine,
        tickets,
        cookies,
        name,
        last_revision: kept,
    };
    let running = Running::start(parts, chosen, last, admin).await.map_err(refused)?;
    // A new one with each process: an old one that leaked is worth nothing.
    let (token, _) = new_key(ADMIN_PREFIX)?;
    let tls = running.current().spec.admin.tls.is_some();
    state.write_admin_token(&token).and_then(|()| state.write_admin(admin, tls)).map_err(
        |error| {
            let path = state.path().display();
            Failure::new(
                exit::FAILURE,
                format!("the state directory {path} cannot be written: {error}"),
            )
        },
    )?;

    tokio::spawn(async move { names.keep_fresh().await });
    let follower = running.clone();
    tokio::spawn(async move { follower.follow_names().await });
    let follower = running.clone();
    tokio::spawn(async move { follower.follow_files().await });
    let follower = running.clone();
    tokio::spawn(async move { follower.follow_providers().await });
    let follower = running.clone();
    tokio::spawn(async move { follower.follow_key_uses().await });
    let follower = running.clone();
    tokio::spawn(async move { follower.follow_store().await });
    let follower = running.clone();
    tokio::spawn(async move { follower.follow_standing().await });
    let api = api::router(running.clone(), Gate::new(&token));
    tokio::spawn(api::serve(listener, api, running.clone()));
    loop {
        tokio::select! {
            () = stop.wanted() => break,
            _ = hang_up.recv() => running.reopen_log(),
            // A service manager signals every process of the gateway; the supervisor then drains
            // the engine first and tells us when it is done. Without it, this is the end.
            _ = terminate.recv() => if !is_parent(inherited.parent) { break },
        }
    }
    running.finish().await;
    Ok(())
}

/// The spec that `up` was given.
fn first(inherited: &Inherited) -> Result<Option<Change>, Failure> {
    let Some(spec) = inherited.spec else { return Ok(None) };
    let mut source = Vec::new();
    File::from(inherited_fd(spec, false)?)
        .take(spec::MAX_BYTES as u64 + 1)
        .read_to_end(&mut source)?;
    Ok(Some(Change {
        source_name: inherited.spec_name.clone().unwrap_or_default(),
        source,
        author: std::env::var("USER").unwrap_or_else(|_| "unknown".into()),
        message: "sluice up".into(),
        dry_run: false,
        over: None,
        by: Principal::local(),
        audit: None,
        trial: None,
    }))
}

/// The snapshot that the engine serves. One that cannot be read is replaced by a new one.
fn last_snapshot(fd: OwnedFd) -> Option<Snapshot> {
    let read = || -> Result<Snapshot, String> {
        let bytes = bus::read_sealed(&fd).map_err(|error| error.to_string())?;
        Snapshot::decode(&bytes).map_err(|error| error.to_string())
    };
    read()
        .inspect_err(|error| eprintln!("sluice: the running snapshot cannot be read: {error}"))
        .ok()
}

async fn listen(address: SocketAddr) -> Result<(TcpListener, SocketAddr), Failure> {
    let listener = TcpListener::bind(address).await.map_err(|error| {
        Failure::new(
            exit::FAILURE,
            format!(
                "the admin API cannot listen on {address}: {error}; is another sluice running? \
                 `admin: {{ listen: 127.0.0.1:PORT }}` in the spec changes it"
            ),
        )
    })?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

fn refused(refused: Refused) -> Failure {
    let code = match refused {
        Refused::Spec(ref problems) => {
            for problem in problems {
                eprintln!("{problem}");
            }
            exit::BAD_SPEC
        }
        Refused::NoSpec => exit::BAD_SPEC,
        // At the start there is nothing that could have been changed.
        Refused::Listener(why) => return Failure::new(exit::FAILURE, why),
        _ => exit::FAILURE,
    };
    Failure::new(code, refused.to_string())
}
