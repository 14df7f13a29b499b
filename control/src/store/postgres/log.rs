//! What is kept beside revisions: the audit log, answers to repeated requests, reports of nodes.

use tokio_postgres::{Row, Transaction};

use super::{AUDITING, Fault, Postgres, StoreError, end, get, lock};
use crate::store::{
    AuditDraft, AuditEntry, AuditVerdict, MAX_REMEMBERED, NodeReport, Remembered,
    chain::{self, Walk},
};

const COLUMNS: &str =
    "seq, time_ms, actor, source, action, target, revision, outcome, prev_hash, hash";

impl Postgres {
    pub async fn audit(&self, draft: AuditDraft) -> Result<AuditEntry, StoreError> {
        let mut held = self.hold().await?;
        let done = held
            .run(async |client| {
                let change = client.transaction().await?;
                let entry = link(&change, draft).await?;
                change.commit().await?;
                Ok(entry)
            })
            .await;
        held.judge(done, "")
    }

    pub async fn audit_list(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        let query =
            format!("SELECT {COLUMNS} FROM audit WHERE seq < $1 ORDER BY seq DESC LIMIT $2");
        let (before, limit) = (end(before), i64::from(limit));
        let mut held = self.hold().await?;
        let done =
            held.run(async |client| Ok(client.query(&query, &[&before, &limit]).await?)).await;
        held.judge(done, "")?.iter().map(entry).collect()
    }

    pub async fn audit_verify(&self) -> Result<AuditVerdict, StoreError> {
        let mut walk = Walk::default();
        // The end first: what is written meanwhile does not matter.
        let head = "SELECT seq FROM audit_head";
        let mut held = self.hold().await?;
        let done = held.run(async |client| Ok(client.query_opt(head, &[]).await?)).await;
        let last: i64 = match held.judge(done, "")? {
            Some(row) => get(&row, 0)?,
            None => 0,
        };
        let query = format!("SELECT {COLUMNS} FROM audit WHERE seq > $1 ORDER BY seq LIMIT $2");
        loop {
            let (after, limit) = (walk.seq() as i64, i64::from(chain::PAGE));
            let mut held = self.hold().await?;
            let done =
                held.run(async |client| Ok(client.query(&query, &[&after, &limit]).await?)).await;
            let page: Vec<AuditEntry> =
                held.judge(done, "")?.iter().map(entry).collect::<Result<_, _>>()?;
            if !walk.take(&page) || page.len() < chain::PAGE as usize {
                return Ok(walk.end(last as u64));
            }
        }
    }

    pub async fn idempotent(
        &self,
        key: &str,
        actor: &str,
    ) -> Result<Option<Remembered>, StoreError> {
        let query = "SELECT fingerprint, status, body FROM idempotency
            WHERE key = $1 AND actor = $2 AND created > clock_timestamp() - interval '24 hours'";
        let mut held = self.hold().await?;
        let done =
            held.run(async |client| Ok(client.query_opt(query, &[&key, &actor]).await?)).await;
        let Some(row) = held.judge(done, "")? else { return Ok(None) };
        Ok(Some(Remembered {
            fingerprint: get(&row, 0)?,
            status: u16::try_from(get::<i32>(&row, 1)?).unwrap_or(500),
            body: get(&row, 2)?,
        }))
    }

    pub async fn remember(
        &self,
        key: &str,
        actor: &str,
        answer: Remembered,
    ) -> Result<(), StoreError> {
        let forget = "DELETE FROM idempotency
            WHERE created < clock_timestamp() - interval '24 hours' OR ctid IN (
                SELECT ctid FROM idempotency ORDER BY created DESC OFFSET $1)";
        let insert = "INSERT INTO idempotency (key, actor, fingerprint, status, body)
            VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
        let Remembered { fingerprint, status, body } = answer;
        let status = i32::from(status);
        let mut held = self.hold().await?;
        let done = held
            .run(async |client| {
                let change = client.transaction().await?;
                change.execute(forget, &[&i64::from(MAX_REMEMBERED - 1)]).await?;
                change.execute(insert, &[&key, &actor, &fingerprint, &status, &body]).await?;
                Ok(change.commit().await?)
            })
            .await;
        held.judge(done, "")
    }

    pub async fn report(&self, node: NodeReport) -> Result<(), StoreError> {
        let text = serde_json::to_string(&node).unwrap_or_default();
        let insert = "INSERT INTO nodes (name, seen, report)
            VALUES ($1, clock_timestamp(), $2::text::jsonb)
            ON CONFLICT (name) DO UPDATE SET seen = excluded.seen, report = excluded.report";
        let mut held = self.hold().await?;
        let done =
            held.run(async |client| Ok(client.execute(insert, &[&node.name, &text]).await?)).await;
        held.judge(done, "").map(drop)
    }

    pub async fn nodes(&self) -> Result<Vec<NodeReport>, StoreError> {
        let query = "SELECT report::text, (extract(epoch FROM seen) * 1000)::bigint FROM nodes
            ORDER BY name";
        let mut held = self.hold().await?;
        let done = held.run(async |client| Ok(client.query(query, &[]).await?)).await;
        let mut nodes = Vec::new();
        for row in held.judge(done, "")? {
            // A newer sluice may say more than this one reads, but never less.
            if let Ok(node) = serde_json::from_str::<NodeReport>(get(&row, 0)?) {
                nodes.push(NodeReport { seen_ms: get::<i64>(&row, 1)? as u64, ..node });
            }
        }
        Ok(nodes)
    }

    pub async fn forget(&self, node: &str) -> Result<(), StoreError> {
        let mut held = self.hold().await?;
        let delete = "DELETE FROM nodes WHERE name = $1";
        let done = held.run(async |client| Ok(client.execute(delete, &[&node]).await?)).await;
        held.judge(done, "").map(drop)
    }
}

/// Appends to the chain.
pub(super) async fn link(change: &Transaction<'_>, draft: AuditDraft) -> Result<AuditEntry, Fault> {
    lock(change, AUDITING).await?;
    let last = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let (seq, prev_hash) = match change.query_opt(last, &[]).await? {
        Some(row) => (row.try_get::<_, i64>(0)?, row.try_get(1)?),
        None => (0, String::new()),
    };
    let now = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint";
    let time_ms: i64 = change.query_one(now, &[]).await?.try_get(0)?;
    let entry = chain::link(draft, seq as u64 + 1, time_ms as u64, prev_hash);
    let insert =
        format!("INSERT INTO audit ({COLUMNS}) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)");
    let (seq, revision) = (entry.seq as i64, entry.revision.map(|revision| revision as i64));
    change
        .execute(
            &insert,
            &[
                &seq,
                &time_ms,
                &entry.actor,
                &entry.source,
                &entry.action,
                &entry.target,
                &revision,
                &entry.outcome,
                &entry.prev_hash,
                &entry.hash,
            ],
        )
        .await?;
    change.execute("UPDATE audit_head SET seq = $1", &[&seq]).await?;
    Ok(entry)
}

fn entry(row: &Row) -> Result<AuditEntry, StoreError> {
    Ok(AuditEntry {
        seq: get::<i64>(row, 0)? as u64,
        time_ms: get::<i64>(row, 1)? as u64,
        actor: get(row, 2)?,
        source: get(row, 3)?,
        action: get(row, 4)?,
        target: get(row, 5)?,
        revision: get::<Option<i64>>(row, 6)?.map(|revision| revision as u64),
        outcome: get(row, 7)?,
        prev_hash: get(row, 8)?,
        hash: get(row, 9)?,
    })
}
