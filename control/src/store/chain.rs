//! The audit log is a chain: each entry carries the hash of the one before, so nothing in it can be
//! changed, left out or put elsewhere without all later hashes being wrong.

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;
use ring::digest::{SHA256, digest};
use serde_json::{Value, json};

use super::{AuditDraft, AuditEntry, AuditVerdict};

/// Entries that are looked at together.
pub(super) const PAGE: u32 = 1_000;

/// The entry after the one with `prev_hash`, sealed.
pub(super) fn link(draft: AuditDraft, seq: u64, time_ms: u64, prev_hash: String) -> AuditEntry {
    let AuditDraft { actor, source, action, target, revision, outcome } = draft;
    let hash = String::new();
    let mut entry = AuditEntry {
        seq,
        time_ms,
        actor,
        source,
        action,
        target,
        revision,
        outcome,
        prev_hash,
        hash,
    };
    entry.hash = hash_of(&entry);
    entry
}

/// SHA-256 over the entry as JSON without its hash, with sorted keys and no spaces.
fn hash_of(entry: &AuditEntry) -> String {
    let fields: BTreeMap<&str, Value> = BTreeMap::from([
        ("action", json!(entry.action)),
        ("actor", json!(entry.actor)),
        ("outcome", json!(entry.outcome)),
        ("prev_hash", json!(entry.prev_hash)),
        ("revision", json!(entry.revision)),
        ("seq", json!(entry.seq)),
        ("source", json!(entry.source)),
        ("target", json!(entry.target)),
        ("time_ms", json!(entry.time_ms)),
    ]);
    // Strings and integers: this cannot fail.
    let canonical = serde_json::to_vec(&fields).unwrap_or_default();
    HEXLOWER.encode(digest(&SHA256, &canonical).as_ref())
}

/// Follows the chain from its first entry.
#[derive(Default)]
pub(super) struct Walk {
    verdict: AuditVerdict,
}

impl Walk {
    /// The last entry that was looked at.
    pub fn seq(&self) -> u64 {
        self.verdict.entries
    }

    /// Looks at the next entries, oldest first; `false`: there is no use in going on.
    pub fn take(&mut self, entries: &[AuditEntry]) -> bool {
        let verdict = &mut self.verdict;
        for entry in entries {
            let wanted = verdict.entries + 1;
            if entry.seq != wanted {
                verdict.broken = Some(format!("entry {wanted} is missing"));
            } else if entry.prev_hash != verdict.head {
                verdict.broken = Some(format!("entry {wanted} does not follow the one before"));
            } else if entry.hash != hash_of(entry) {
                verdict.broken = Some(format!("entry {wanted} was changed"));
            }
            if verdict.broken.is_some() {
                return false;
            }
            verdict.entries = entry.seq;
            verdict.head.clone_from(&entry.hash);
        }
        true
    }

    /// The verdict, given the last entry's number as the store keeps it beside the chain.
    pub fn end(mut self, last: u64) -> AuditVerdict {
        if self.verdict.broken.is_none() && self.verdict.entries < last {
            let missing = self.verdict.entries + 1;
            self.verdict.broken = Some(format!("entries {missing} to {last} are missing"));
        }
        self.verdict
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(length: u64) -> Vec<AuditEntry> {
        let mut entries: Vec<AuditEntry> = Vec::new();
        for seq in 1..=length {
            let draft = AuditDraft {
                actor: "ada".into(),
                source: "127.0.0.1".into(),
                action: "apply".into(),
                target: "spec".into(),
                revision: Some(seq),
                outcome: "done".into(),
            };
            let before = entries.last().map(|entry| entry.hash.clone()).unwrap_or_default();
            entries.push(link(draft, seq, 1_000 + seq, before));
        }
        entries
    }

    fn verdict(entries: &[AuditEntry], last: u64) -> Option<String> {
        let mut walk = Walk::default();
        walk.take(entries);
        walk.end(last).broken
    }

    #[test]
    fn a_whole_chain_passes_and_its_hash_is_what_it_was() {
        let entries = chain(3);
        assert_eq!(verdict(&entries, 3), None);
        // Computed by another program: hashes must mean the same in every version.
        assert_eq!(
            entries[0].hash,
            "0c025840bddbb11ba978d7b767c1a46abec6d5d10a3489c35638d49fbc5acfea"
        );
    }

    #[test]
    fn whatever_is_changed_is_found() {
        let whole = chain(4);
        let changes: [fn(&mut AuditEntry); 9] = [
            |entry| entry.actor = "eve".into(),
            |entry| entry.source = "10.0.0.1".into(),
            |entry| entry.action = "read".into(),
            |entry| entry.target.clear(),
            |entry| entry.outcome = "refused".into(),
            |entry| entry.time_ms += 1,
            |entry| entry.revision = None,
            |entry| entry.prev_hash.clear(),
            |entry| entry.hash = "00".into(),
        ];
        for change in changes {
            let mut entries = whole.clone();
            change(&mut entries[2]);
            assert!(verdict(&entries, 4).is_some());
            // Who makes its hash fit again breaks the next one.
            entries[2].hash = hash_of(&entries[2]);
            if entries[2] != whole[2] {
                assert!(verdict(&entries, 4).is_some());
            }
        }
        for gone in 0..4 {
            let mut entries = whole.clone();
            entries.remove(gone);
            assert!(verdict(&entries, 4).unwrap().contains("missing"));
        }
        let mut entries = whole;
        entries.swap(1, 2);
        assert!(verdict(&entries, 4).is_some());
    }
}
