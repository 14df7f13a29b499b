//! Trials of revisions on some nodes: their beginning, what this node does meanwhile, and their end.

use std::sync::Arc;

use super::{Refused, Running};
use crate::{
    access::Principal,
    diff::diff,
    rollout::{MAX_SILENT_MS, Order, Rollout, Side, Standing, State, Verdict, judge},
    spec::Spec,
    store::{AuditDraft, Draft, NodeReport, StoreError, Trial},
};

impl Running {
    /// The trial that `order` asks for, of a revision over `base`.
    ///
    /// # Errors
    /// There are not the nodes for it.
    pub(super) async fn planned(
        &self,
        order: &Order,
        base: u64,
        author: &str,
    ) -> Result<Rollout, Refused> {
        let store = &self.shared.store;
        if !store.is_shared() {
            return Err(Refused::Conflict(
                "a canary needs other nodes to compare it with, which share a store: `sluice up --store \
                 postgres://...`"
                    .into(),
            ));
        }
        let (mut nodes, now_ms) = (store.nodes().await?, store.now_ms());
        nodes.retain(|node| {
            let lives = now_ms.saturating_sub(node.seen_ms) <= MAX_SILENT_MS;
            lives && node.engine == "ok" && node.error.is_none()
        });
        Ok(Rollout {
            revision: 0,
            base,
            canaries: order.canaries.choose(&nodes).map_err(Refused::Conflict)?,
            rules: order.rules.clone(),
            author: author.into(),
            started_ms: 0,
            state: State::Watching,
            reason: String::new(),
            ended_ms: None,
        })
    }

    /// Meters what this node serves during `trial`, if there is one.
    pub(super) fn meter(&self, trial: Option<&Rollout>) {
        let current = self.current();
        let following = self.following();
        let metered = trial.and_then(|trial| match trial.has(following.name()) {
            // Only what the revision itself has served.
            true if current.revision.id != trial.revision => None,
            true => Some((trial.revision, current.snapshot.epoch)),
            false => Some((trial.revision, 0)),
        });
        self.shared.records.meter(metered);
        following.set_trial(trial.cloned());
    }

    /// Ends the trial that lasts, if it is time.
    pub(super) async fn judge_trial(&self) {
        let Some(trial) = self.following().trial() else { return };
        let store = &self.shared.store;
        let Ok(nodes) = store.nodes().await else { return };
        let (state, why) = match judge(&trial, &nodes, store.now_ms()) {
            Verdict::Wait(_) => return,
            Verdict::Promote(why) => (State::Promoted, why),
            Verdict::RollBack(why) => (State::RolledBack, why),
        };
        let name = self.following().name();
        let audit = AuditDraft {
            actor: "sluice".into(),
            source: name.into(),
            action: match state {
                State::Promoted => "promoteRollout".into(),
                _ => "abortRollout".into(),
            },
            target: "rollout".into(),
            revision: None,
            outcome: "done".into(),
        };
        // Of all nodes that say so only one is heard.
        match self.end(&trial, state, &why, "sluice", audit).await {
            Ok(_) | Err(Refused::Store(StoreError::Changed { .. })) => {}
            Err(error) => eprintln!(
                "sluice: the trial of revision {} could not be ended: {error}",
                trial.revision
            ),
        }
    }

    /// The last trial, and what is known of it.
    pub async fn rollout(&self) -> Result<Standing, Refused> {
        let store = &self.shared.store;
        let rollout = store.rollout().await?;
        let Some(trial) = rollout.as_ref().filter(|rollout| rollout.lasts()) else {
            let (canaries, rest) = (Side::default(), Side::default());
            return Ok(Standing { rollout, canaries, rest, waits_for: String::new() });
        };
        let mut nodes = store.nodes().await?;
        let now_ms = store.now_ms();
        let waits_for = match judge(trial, &nodes, now_ms) {
            Verdict::Wait(what) => what,
            Verdict::Promote(why) => format!("its promotion: {why}"),
            Verdict::RollBack(why) => format!("its end: {why}"),
        };
        nodes.retain(|node: &NodeReport| {
            trial.has(&node.name) || now_ms.saturating_sub(node.seen_ms) <= MAX_SILENT_MS
        });
        let (canaries, rest) = trial.sides(&nodes);
        Ok(Standing { rollout, canaries, rest, waits_for })
    }

    /// Ends the trial that lasts because a person wants it: for all nodes, or for none.
    pub async fn end_trial(
        &self,
        state: State,
        why: &str,
        by: &Principal,
        audit: AuditDraft,
    ) -> Result<Rollout, Refused> {
        let trial = self.shared.store.standing().await?.trial;
        let none = || Refused::Conflict("no revision is on trial".into());
        let trial = trial.ok_or_else(none)?;
        let (old, new) = self.both(&trial).await?;
        by.may_change(&diff(&old, &new), &old, &new).map_err(Refused::Forbidden)?;
        let author = audit.actor.clone();
        match self.end(&trial, state, why, &author, audit).await {
            Err(Refused::Store(StoreError::Changed { .. })) => Err(none()),
            done => done,
        }
    }

    /// The specs of a trial: of the rest, and of the canaries.
    async fn both(&self, trial: &Rollout) -> Result<(Arc<Spec>, Arc<Spec>), Refused> {
        let mut specs = Vec::new();
        for id in [trial.base, trial.revision] {
            let revision = self.revision(id).await?;
            let spec = tokio::task::spawn_blocking(move || serde_json::from_str(&revision.spec));
            let spec = spec.await.map_err(|error| Refused::Internal(error.to_string()))?;
            let spec: Spec = spec.map_err(|error| {
                Refused::Conflict(format!("revision {id} is of another version of sluice: {error}"))
            })?;
            specs.push(Arc::new(spec));
        }
        match <[Arc<Spec>; 2]>::try_from(specs) {
            Ok([old, new]) => Ok((old, new)),
            Err(_) => Err(Refused::Internal("a trial has two specs".into())),
        }
    }

    async fn end(
        &self,
        trial: &Rollout,
        state: State,
        why: &str,
        author: &str,
        audit: AuditDraft,
    ) -> Result<Rollout, Refused> {
        let store = &self.shared.store;
        let ended = trial.ended(state, why, store.now_ms());
        let revision = trial.revision;
        if state == State::Promoted {
            if !store.end_rollout(ended.clone(), audit).await? {
                return Err(Refused::Store(StoreError::Changed { latest: revision }));
            }
            eprintln!("sluice: revision {revision} is promoted to all nodes: {why}");
        } else {
            let (old, new) = self.both(trial).await?;
            let base = self.revision(trial.base).await?;
            let draft = Draft {
                author: author.into(),
                message: format!("canary of revision {revision} rolled back: {why}"),
                spec: base.spec,
                source: base.source,
                source_name: base.source_name,
                diff: serde_json::to_value(diff(&new, &old)).unwrap_or_default(),
                base: Some(revision),
                delta: None,
                audit: Some(audit),
                trial: Trial::End(Box::new(ended.clone())),
            };
            let back = store.append(draft, Some(revision)).await?;
            eprintln!("sluice: revision {revision} is rolled back, as revision {}: {why}", back.id);
        }
        // What this node could not take is noted with its report.
        _ = self.catch_up().await;
        Ok(ended)
    }
}
