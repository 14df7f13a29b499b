//! What is kept beside revisions: the audit log, answers to repeated requests, reports of nodes.

use rusqlite::{OptionalExtension, Row, Transaction};

use super::{Sqlite, StoreError, end, now_ms};
use crate::store::{
    AuditDraft, AuditEntry, AuditVerdict, MAX_REMEMBERED, NodeReport, REMEMBERED_MS, Remembered,
    chain::{self, Walk},
};

const COLUMNS: &str =
    "seq, time_ms, actor, source, action, target, revision, outcome, prev_hash, hash";

impl Sqlite {
    pub async fn audit(&self, draft: AuditDraft) -> Result<AuditEntry, StoreError> {
        self.change(move |change| link(change, draft)).await
    }

    pub async fn audit_list(
        &self,
        before: Option<u64>,
        limit: u32,
    ) -> Result<Vec<AuditEntry>, StoreError> {
        self.call(move |connection| {
            let query =
                format!("SELECT {COLUMNS} FROM audit WHERE seq < ?1 ORDER BY seq DESC LIMIT ?2");
            let mut query = connection.prepare(&query)?;
            query.query_map((end(before), limit), entry)?.collect()
        })
        .await
    }

    pub async fn audit_verify(&self) -> Result<AuditVerdict, StoreError> {
        let mut walk = Walk::default();
        // The end first: what is written meanwhile does not matter.
        let last: i64 = self
            .call(|connection| {
                let head = "SELECT seq FROM audit_head";
                Ok(connection.query_row(head, [], |row| row.get(0)).optional()?.unwrap_or(0))
            })
            .await?;
        loop {
            let after = walk.seq() as i64;
            let page: Vec<AuditEntry> = self
                .call(move |connection| {
                    let query =
                        format!("SELECT {COLUMNS} FROM audit WHERE seq > ?1 ORDER BY seq LIMIT ?2");
                    let mut query = connection.prepare(&query)?;
                    query.query_map((after, chain::PAGE), entry)?.collect()
                })
                .await?;
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
        let (key, actor) = (key.to_owned(), actor.to_owned());
        let since_ms = now_ms().saturating_sub(REMEMBERED_MS) as i64;
        self.call(move |connection| {
            let query = "SELECT fingerprint, status, body FROM idempotency
                WHERE key = ?1 AND actor = ?2 AND created_ms >= ?3";
            connection
                .query_row(query, (key, actor, since_ms), |row| {
                    Ok(Remembered {
                        fingerprint: row.get(0)?,
                        status: row.get(1)?,
                        body: row.get(2)?,
                    })
                })
                .optional()
        })
        .await
    }

    pub async fn remember(
        &self,
        key: &str,
        actor: &str,
        answer: Remembered,
    ) -> Result<(), StoreError> {
        let (key, actor) = (key.to_owned(), actor.to_owned());
        self.change(move |change| {
            let now_ms = now_ms();
            let since_ms = now_ms.saturating_sub(REMEMBERED_MS) as i64;
            change.execute("DELETE FROM idempotency WHERE created_ms < ?1", [since_ms])?;
            change.execute(
                "INSERT INTO idempotency (key, actor, created_ms, fingerprint, status, body)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6) ON CONFLICT DO NOTHING",
                (key, actor, now_ms as i64, answer.fingerprint, answer.status, answer.body),
            )?;
            change.execute(
                "DELETE FROM idempotency WHERE rowid IN (
                    SELECT rowid FROM idempotency ORDER BY created_ms DESC, rowid DESC
                    LIMIT -1 OFFSET ?1)",
                [MAX_REMEMBERED],
            )?;
            Ok(())
        })
        .await
    }

    pub async fn report(&self, mut node: NodeReport) -> Result<(), StoreError> {
        self.change(move |change| {
            node.seen_ms = now_ms();
            let text = serde_json::to_string(&node).unwrap_or_default();
            change.execute(
                "INSERT INTO nodes (name, seen_ms, report) VALUES (?1, ?2, ?3)
                 ON CONFLICT (name) DO UPDATE SET seen_ms = excluded.seen_ms,
                 report = excluded.report",
                (&node.name, node.seen_ms as i64, text),
            )?;
            Ok(())
        })
        .await
    }

    pub async fn nodes(&self) -> Result<Vec<NodeReport>, StoreError> {
        self.call(|connection| {
            let mut query = connection.prepare("SELECT report FROM nodes ORDER BY name")?;
            let reports = query.query_map([], |row| row.get::<_, String>(0))?;
            let reports: Vec<String> = reports.collect::<rusqlite::Result<_>>()?;
            // A newer sluice may say more than this one reads, but never less.
            Ok(reports.iter().filter_map(|text| serde_json::from_str(text).ok()).collect())
        })
        .await
    }

    /// Forgets a node, until it reports again.
    pub async fn forget(&self, node: &str) -> Result<(), StoreError> {
        let node = node.to_owned();
        self.change(move |change| {
            change.execute("DELETE FROM nodes WHERE name = ?1", [node])?;
            Ok(())
        })
        .await
    }
}

/// Appends to the chain.
pub(super) fn link(change: &Transaction<'_>, draft: AuditDraft) -> rusqlite::Result<AuditEntry> {
    let last = "SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1";
    let last = change.query_row(last, [], |row| Ok((row.get::<_, i64>(0)?, row.get(1)?)));
    let (seq, prev_hash) = last.optional()?.unwrap_or_default();
    let entry = chain::link(draft, seq as u64 + 1, now_ms(), prev_hash);
    change.execute(
        &format!("INSERT INTO audit ({COLUMNS}) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)"),
        (
            entry.seq as i64,
            entry.time_ms as i64,
            &entry.actor,
            &entry.source,
            &entry.action,
            &entry.target,
            entry.revision.map(|revision| revision as i64),
            &entry.outcome,
            &entry.prev_hash,
            &entry.hash,
        ),
    )?;
    change.execute("UPDATE audit_head SET seq = ?1", [entry.seq as i64])?;
    Ok(entry)
}

fn entry(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
    Ok(AuditEntry {
        seq: row.get::<_, i64>(0)? as u64,
        time_ms: row.get::<_, i64>(1)? as u64,
        actor: row.get(2)?,
        source: row.get(3)?,
        action: row.get(4)?,
        target: row.get(5)?,
        revision: row.get::<_, Option<i64>>(6)?.map(|revision| revision as u64),
        outcome: row.get(7)?,
        prev_hash: row.get(8)?,
        hash: row.get(9)?,
    })
}
