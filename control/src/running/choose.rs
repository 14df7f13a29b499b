//! What a control process begins with.

use contract::snapshot::Snapshot;

use super::{
    Change, LastRevision, MAX_NAME, Refused, canonical, checked, cut, follow, load,
    told::{recovered, told},
};
use crate::{
    fit::{Checked, Judge, Whole},
    store::{Draft, Revision, Store, StoreError},
};

/// What a control process begins with: the spec in `first`, or the latest revision. `last` is the
/// snapshot that the engine serves already. While the store cannot be asked, it is the revision that
/// ran here last. A store that nodes share takes `first` only when it is empty: a node that comes
/// must not undo what others run.
pub async fn choose(
    (store, node): (&Store, &str),
    first: Option<Change>,
    last: Option<&Snapshot>,
    kept: &LastRevision,
    judge: Judge,
) -> Result<(Revision, Whole), Refused> {
    let chosen = match first {
        Some(change) if !store.is_shared() => stored(store, change, None, judge).await,
        Some(change) => match store.latest_id().await {
            Ok(0) => match stored(store, change, Some(0), judge).await {
                Err(Refused::Store(StoreError::Changed { .. })) => {
                    latest(store, node, last, judge).await
                }
                done => done,
            },
            Ok(id) => {
                eprintln!(
                    "sluice: the store {} has revision {id}, which is served; `sluice apply -f {}` \
                     changes it",
                    store.place(),
                    change.source_name
                );
                latest(store, node, last, judge).await
            }
            Err(error) => Err(error.into()),
        },
        None => latest(store, node, last, judge).await,
    };
    let revision = match &chosen {
        Err(Refused::Store(error)) => follow::instead(store, kept, error),
        // Others may be able to take it; this node goes on with what it could.
        Err(Refused::Spec(problems)) if store.is_shared() => {
            for problem in problems {
                eprintln!("sluice: {problem}");
            }
            kept.read()
        }
        _ => None,
    };
    match revision {
        Some(revision) => {
            let (spec, name) = (revision.spec.clone(), format!("revision {}", revision.id));
            readable(revision, &name, spec.as_bytes(), last, judge).await
        }
        None => chosen,
    }
}

/// The revision of `change`: the latest one when it has the same text, else a new one.
async fn stored(
    store: &Store,
    change: Change,
    over: Option<u64>,
    judge: Judge,
) -> Result<(Revision, Whole), Refused> {
    let whole = told(load(&change.source_name, &change.source, judge).await?).await?;
    let text = canonical(&whole.spec)?;
    let source = String::from_utf8_lossy(&change.source).into_owned();
    if let Some(latest) = store.latest().await?
        && latest.spec == text
        && latest.source == source
    {
        return Ok((latest, whole));
    }
    let draft = Draft {
        author: cut(change.author, MAX_NAME),
        message: change.message,
        spec: text.into(),
        source: source.into(),
        source_name: cut(change.source_name, MAX_NAME),
        ..Draft::default()
    };
    Ok((store.append(draft, over).await?, whole))
}

/// What `node` is to serve: the latest one, or the one before while that is on trial elsewhere.
async fn latest(
    store: &Store,
    node: &str,
    last: Option<&Snapshot>,
    judge: Judge,
) -> Result<(Revision, Whole), Refused> {
    let wanted = store.standing().await?.wanted(node);
    let Some(latest) = store.get(wanted).await? else {
        return Err(Refused::NoSpec);
    };
    let (spec, name) = (latest.spec.clone(), format!("revision {}", latest.id));
    readable(latest, &name, spec.as_bytes(), last, judge).await
}

/// A stored revision with what its files hold.
async fn readable(
    revision: Revision,
    name: &str,
    source: &[u8],
    last: Option<&Snapshot>,
    judge: Judge,
) -> Result<(Revision, Whole), Refused> {
    let Checked { whole, problems, spec, .. } = checked(name, source, judge).await?;
    match (whole, spec, last) {
        (Some(whole), spec, last) => match (told(whole).await, spec, last) {
            (Ok(whole), ..) => Ok((revision, whole)),
            // A command fails just now.
            (Err(Refused::Spec(problems)), Some(spec), Some(last))
                if last.revision == revision.id =>
            {
                Ok((revision, recovered(spec, last, &problems)))
            }
            (Err(refused), ..) => Err(refused),
        },
        // A file cannot be read just now, but the engine serves with what it held.
        (None, Some(spec), Some(last)) if last.revision == revision.id => {
            Ok((revision, recovered(spec, last, &problems)))
        }
        _ => Err(Refused::Spec(problems)),
    }
}
