//! Changes of one thing in the running spec.

use std::sync::Arc;

use serde_json::Value;

use super::{
    Change, Current, MAX_MESSAGE, MAX_NAME, Refused, Running,
    amend::{self, Placing},
    canonical, cut, load,
};
use crate::{
    api::model::Applied,
    diff::Diff,
    explain::{Explanation, Question},
    fit::{self, Checked, Whole},
    records::Asked,
    spec::Problem,
    store::{Draft, Text},
    yaml::Yaml,
};

/// How often a change is made anew because another one came between.
const MAX_TRIES: usize = 5;

/// Makes a change in the canonical form of the running spec.
pub type Edit = Arc<dyn Fn(&Current, &mut Value) -> Result<(), Refused> + Send + Sync>;

/// Finds out what is to become of a thing of the running spec.
pub type Aim = Arc<dyn Fn(&Current) -> Result<Placing, Refused> + Send + Sync>;

/// A change on its way.
enum Made {
    /// A large spec of which little has changed.
    Amended(Box<(Draft, Whole)>),
    /// A text to be read.
    Text(String),
    /// A spec that is too large to go by a text for people.
    Large(Vec<u8>),
}

impl Running {
    /// Does to one thing in `list` of the running spec what `aim` says.
    pub async fn revise_one(
        &self,
        change: Change,
        list: &'static str,
        aim: Aim,
    ) -> Result<Applied, Refused> {
        let own = Arc::clone(&aim);
        let edit: Edit = Arc::new(move |current, spec| {
            let Placing { take, put } = own(current)?;
            // An empty list may be left out.
            let lists = spec.as_object_mut();
            let places =
                lists.map(|lists| lists.entry(list).or_insert_with(|| Value::Array(Vec::new())));
            let places = places
                .and_then(Value::as_array_mut)
                .ok_or_else(|| Refused::Internal(format!("the spec has no {list}")))?;
            if let Some(at) = take {
                places.remove(at);
            }
            if let Some((at, value)) = put {
                places.insert(at, value);
            }
            Ok(())
        });
        self.revised(change, edit, (list == "routes").then_some(aim)).await
    }

    /// Makes `edit` in the running spec; the source of the new revision is its canonical form.
    /// Without `change.over` it is made over whatever runs.
    pub async fn revise(&self, change: Change, edit: Edit) -> Result<Applied, Refused> {
        self.revised(change, edit, None).await
    }

    /// `route`: the same as `edit`, where it is about one route.
    async fn revised(
        &self,
        change: Change,
        edit: Edit,
        route: Option<Aim>,
    ) -> Result<Applied, Refused> {
        for _ in 1..MAX_TRIES {
            match self.try_revise(&change, &edit, route.as_ref()).await {
                Err(Refused::Changed { .. }) if change.over.is_none() => {}
                end => return end,
            }
        }
        self.try_revise(&change, &edit, route.as_ref()).await
    }

    async fn try_revise(
        &self,
        change: &Change,
        edit: &Edit,
        route: Option<&Aim>,
    ) -> Result<Applied, Refused> {
        let current = self.current();
        let over = current.revision.id;
        if let Some(expected) = change.over.filter(|expected| *expected != over) {
            return Err(Refused::Changed { running: over, expected });
        }
        let (edit, route, judge) = (Arc::clone(edit), route.cloned(), self.shared.engine.check);
        // Away from the async threads: a large spec takes a while.
        let made = tokio::task::spawn_blocking(move || {
            let large = amend::is_large(&current.spec);
            if let Some(aim) = route.filter(|_| large)
                && let Some((whole, delta)) = amend::route(&current, &aim(&current)?, judge)
            {
                let (spec, source) = texts(whole.spec.clone());
                let draft = Draft { spec, source, delta: Some(delta), ..Draft::default() };
                return Ok(Made::Amended((draft, whole).into()));
            }
            let mut value = serde_json::to_value(&*current.spec)
                .map_err(|error| Refused::Internal(error.to_string()))?;
            edit(&current, &mut value)?;
            match large {
                true => match serde_json::to_vec(&value) {
                    Ok(text) => Ok(Made::Large(text)),
                    Err(error) => Err(Refused::Internal(error.to_string())),
                },
                false => Ok(Made::Text(Yaml::from(&value).document())),
            }
        });
        let made = made.await.map_err(|error| Refused::Internal(error.to_string()))??;
        let (draft, whole) = match made {
            Made::Amended(both) => *both,
            Made::Text(text) => {
                let whole = load(&change.source_name, text.as_bytes(), judge).await?;
                let spec = canonical(&whole.spec)?.into();
                (Draft { spec, source: text.into(), ..Draft::default() }, whole)
            }
            Made::Large(text) => {
                let whole = load(&change.source_name, &text, judge).await?;
                let (spec, source) = texts(whole.spec.clone());
                (Draft { spec, source, ..Draft::default() }, whole)
            }
        };
        let draft = Draft {
            author: cut(change.author.clone(), MAX_NAME),
            message: cut(change.message.clone(), MAX_MESSAGE),
            source_name: cut(change.source_name.clone(), MAX_NAME),
            audit: change.audit.clone(),
            ..draft
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
        let Whole { spec, material, .. } =
            load("request", source, self.shared.engine.check).await?;
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

/// The canonical forms of a spec, as JSON and for people, made when they are read.
fn texts(spec: crate::spec::Spec) -> (Text, Text) {
    let other = spec.clone();
    // Every type of the spec has string keys only, so this cannot fail.
    let json = Text::later(move || serde_json::to_string(&spec).unwrap_or_default());
    let yaml = Text::later(move || {
        let value = serde_json::to_value(&other).unwrap_or_default();
        Yaml::from(&value).document()
    });
    (json, yaml)
}
