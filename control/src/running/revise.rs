//! Changes of one thing in the running spec.

use std::sync::Arc;

use serde_json::Value;

use super::{Change, Current, MAX_MESSAGE, MAX_NAME, Refused, Running, canonical, cut, load};
use crate::{
    api::model::Applied,
    diff::Diff,
    explain::{Explanation, Question},
    fit::{self, Checked, Whole},
    records::Asked,
    spec::Problem,
    store::Draft,
    yaml::Yaml,
};

/// How often a change is made anew because another one came between.
const MAX_TRIES: usize = 5;

/// Makes a change in the canonical form of the running spec.
pub type Edit = Arc<dyn Fn(&Current, &mut Value) -> Result<(), Refused> + Send + Sync>;

impl Running {
    /// Makes `edit` in the running spec; the source of the new revision is its canonical form.
    /// Without `change.over` it is made over whatever runs.
    pub async fn revise(&self, change: Change, edit: Edit) -> Result<Applied, Refused> {
        for _ in 1..MAX_TRIES {
            match self.try_revise(&change, &edit).await {
                Err(Refused::Changed { .. }) if change.over.is_none() => {}
                end => return end,
            }
        }
        self.try_revise(&change, &edit).await
    }

    async fn try_revise(&self, change: &Change, edit: &Edit) -> Result<Applied, Refused> {
        let current = self.current();
        let over = current.revision.id;
        if let Some(expected) = change.over.filter(|expected| *expected != over) {
            return Err(Refused::Changed { running: over, expected });
        }
        let edit = Arc::clone(edit);
        // Away from the async threads: a large spec takes a while.
        let text = tokio::task::spawn_blocking(move || {
            let mut value = serde_json::to_value(&*current.spec)
                .map_err(|error| Refused::Internal(error.to_string()))?;
            edit(&current, &mut value)?;
            Ok::<_, Refused>(Yaml::from(&value).document())
        });
        let text = text.await.map_err(|error| Refused::Internal(error.to_string()))??;
        let whole = load(&change.source_name, text.as_bytes(), self.shared.engine.check).await?;
        let draft = Draft {
            author: cut(change.author.clone(), MAX_NAME),
            message: cut(change.message.clone(), MAX_MESSAGE),
            spec: canonical(&whole.spec)?,
            source: text,
            source_name: cut(change.source_name.clone(), MAX_NAME),
            audit: change.audit.clone(),
            ..Draft::default()
        };
        self.install(whole, draft, (change.dry_run, Some(over)), &change.by, None).await
    }

    /// How the spec `source` differs from the running one.
    pub async fn diff(&self, source: Vec<u8>) -> Result<Diff, Refused> {
        let whole = load("request", &source, self.shared.engine.check).await?;
        Ok(crate::diff::diff(&self.current().spec, &whole.spec))
    }

    /// Asks the engine's router about `question`.
    pub async fn explain(&self, question: Question) -> Result<Explanation, Refused> {
        let (snapshot, explain) =
            (Arc::clone(&self.current().snapshot), self.shared.engine.explain);
        question.check(&snapshot).map_err(Refused::Question)?;
        let answer = tokio::task::spawn_blocking(move || explain(&snapshot, &question)).await;
        answer.map_err(|error| Refused::Internal(error.to_string()))?.map_err(Refused::Question)
    }

    /// Every problem of a spec, and whether it could run.
    pub async fn validate(&self, source: Vec<u8>) -> Result<(bool, Vec<Problem>), Refused> {
        let Checked { whole, problems, .. } =
            super::checked("request", &source, self.shared.engine.check).await?;
        Ok((whole.is_some(), problems))
    }

    /// What the last requests asked for, oldest first.
    pub fn recent(&self) -> Vec<Asked> {
        self.shared.records.recent()
    }

    /// Explains `questions` by the running spec and by the spec `source`, until `enough` says so.
    pub async fn try_out(
        &self,
        source: &[u8],
        questions: Vec<Question>,
        enough: impl Fn() -> bool + Send + 'static,
    ) -> Result<(Diff, Vec<(Question, Explanation, Explanation)>), Refused> {
        let Whole { spec, material } = load("request", source, self.shared.engine.check).await?;
        let current = self.current();
        let diff = crate::diff::diff(&current.spec, &spec);
        let explain = self.shared.engine.explain;
        let work = move || {
            let (now, then) = (&*current.snapshot, fit::plain(&spec, &material));
            let mut answers = Vec::new();
            for question in questions {
                if enough() {
                    break;
                }
                let before = explain(now, &question)?;
                let after = explain(&then, &question)?;
                answers.push((question, before, after));
            }
            Ok(answers)
        };
        let answers = tokio::task::spawn_blocking(work).await;
        let answers = answers.map_err(|error| Refused::Internal(error.to_string()))?;
        Ok((diff, answers.map_err(Refused::Question)?))
    }
}
