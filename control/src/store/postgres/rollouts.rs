//! Trials of revisions. A row's version rises with each change of it, and of two that would end a trial
//! only the first does.

use tokio_postgres::{Client, Transaction};

use super::{APPENDING, Fault, MAX_KEPT, Postgres, get, lock, log};
use crate::{
    rollout::{Rollout, State},
    store::{AuditDraft, Known, Standing, StoreError, Trial},
};

impl Postgres {
    pub async fn standing(&self) -> Result<Standing, StoreError> {
        let query = "SELECT (SELECT coalesce(max(id), 0)::bigint FROM revisions),
            (SELECT rollout::text FROM rollouts WHERE state = 'watching' ORDER BY revision DESC LIMIT 1)";
        let mut held = self.hold().await?;
        let done = held.run(async |client| Ok(client.query_one(query, &[]).await?)).await;
        let row = held.judge(done, "")?;
        let latest = get::<i64>(&row, 0)? as u64;
        let trial = get::<Option<String>>(&row, 1)?.map(|text| parsed(&text)).transpose()?;
        // A database that went back in time may have the one and not the other.
        Ok(Standing { latest, trial: trial.filter(|trial| trial.revision == latest) })
    }

    pub async fn rollout(&self) -> Result<Option<Rollout>, StoreError> {
        let query = "SELECT rollout::text FROM rollouts ORDER BY revision DESC LIMIT 1";
        let mut held = self.hold().await?;
        let done = held.run(async |client| Ok(client.query_opt(query, &[]).await?)).await;
        let Some(row) = held.judge(done, "")? else { return Ok(None) };
        parsed(get(&row, 0)?).map(Some)
    }

    pub async fn end_rollout(&self, ended: Rollout, audit: AuditDraft) -> Result<bool, StoreError> {
        let mut held = self.hold().await?;
        let done = held
            .run(async |client| {
                let change = client.transaction().await?;
                lock(&change, APPENDING).await?;
                if !end(&change, &ended).await? {
                    return Ok(false);
                }
                log::link(&change, AuditDraft { revision: Some(ended.revision), ..audit }).await?;
                change.execute("SELECT pg_notify('sluice', 'trial')", &[]).await?;
                change.commit().await?;
                Ok(true)
            })
            .await;
        held.judge(done, "whether the trial has ended is not known: `sluice rollout` tells")
    }
}

fn parsed(text: &str) -> Result<Rollout, StoreError> {
    serde_json::from_str(text).map_err(|error| {
        StoreError::Failed(format!("a trial in the database cannot be read: {error}"))
    })
}

pub async fn known(client: &Client) -> Result<Known, Fault> {
    let query = "SELECT (SELECT coalesce(max(id), 0)::bigint FROM revisions),
        (SELECT coalesce(sum(version), 0)::bigint FROM rollouts)";
    let row = client.query_one(query, &[]).await?;
    Ok(Known { latest: row.try_get::<_, i64>(0)? as u64, trials: row.try_get::<_, i64>(1)? as u64 })
}

/// While the latest revision is on trial only the one that ends the trial may follow.
pub async fn check(change: &Transaction<'_>, latest: i64, trial: &Trial) -> Result<(), Fault> {
    let query = "SELECT 1 FROM rollouts WHERE revision = $1 AND state = 'watching'";
    let lasts = change.query_opt(query, &[&latest]).await?.is_some();
    match trial {
        Trial::End(rollout) if lasts && rollout.revision == latest as u64 => Ok(()),
        Trial::End(_) => Err(StoreError::Changed { latest: latest as u64 }.into()),
        _ if lasts => Err(StoreError::OnTrial { revision: latest as u64 }.into()),
        _ => Ok(()),
    }
}

/// What comes with revision `id`.
pub async fn write(
    change: &Transaction<'_>,
    id: i64,
    created_ms: u64,
    trial: Trial,
) -> Result<(), Fault> {
    let insert = "INSERT INTO rollouts (revision, version, state, changed, rollout)
        VALUES ($1, 1, 'watching', clock_timestamp(), $2::text::jsonb)";
    match trial {
        Trial::None => {}
        Trial::Begin(rollout) => {
            let rollout = Rollout { revision: id as u64, started_ms: created_ms, ..*rollout };
            change.execute(insert, &[&id, &text(&rollout)]).await?;
            let old = id - MAX_KEPT as i64;
            change.execute("DELETE FROM rollouts WHERE revision <= $1", &[&old]).await?;
        }
        Trial::End(rollout) => {
            if !end(change, &rollout).await? {
                return Err(StoreError::Changed { latest: id as u64 - 1 }.into());
            }
        }
    }
    Ok(())
}

async fn end(change: &Transaction<'_>, ended: &Rollout) -> Result<bool, Fault> {
    let update = "UPDATE rollouts
        SET state = $2, version = version + 1, changed = clock_timestamp(), rollout = $3::text::jsonb
        WHERE revision = $1 AND state = 'watching'";
    let state = match ended.state {
        State::Watching => "watching",
        State::Promoted => "promoted",
        State::RolledBack => "rolled_back",
    };
    let revision = ended.revision as i64;
    Ok(change.execute(update, &[&revision, &state, &text(ended)]).await? == 1)
}

fn text(rollout: &Rollout) -> String {
    serde_json::to_string(rollout).unwrap_or_default()
}
