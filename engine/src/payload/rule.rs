//! One rule for bodies: which it is for, how they are read, what is done, how they are written.

use std::sync::Arc;

use contract::encode::MAX_CHANGED_BODY;
use contract::snapshot::BodyForm;

use super::jq::{Failed, Ran, Workers};
use super::json::Json;
use super::project::Tree;
use super::records::{Form, Records, Stop};
use super::steps::{self, Step};
use super::template::Known;
use super::{form, xml};
use crate::coding::{Coding, Undecodable, decode_all};
use crate::limits;
use crate::media::Types;
use crate::template::Reference;

/// A rule, compiled.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// First and last, both included; empty: any.
    pub statuses: Box<[(u16, u16)]>,
    pub types: Types,
    pub from: BodyForm,
    pub to: BodyForm,
    pub decode: bool,
    /// Largest body, or record of one, in bytes.
    pub most: usize,
    /// What cannot be read goes on as it is.
    pub pass: bool,
    pub arrays: Tree,
    pub work: Box<[Work]>,
    /// What its templates ask for, the body left out.
    pub asks: Box<[Reference]>,
}

/// What is done in one go.
#[derive(Clone, Debug, PartialEq)]
pub enum Work {
    Steps(Box<[Step]>),
    Jq { program: Arc<str>, timeout_ms: u32 },
}

/// Why a body cannot be changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It is not what the rule reads.
    Unreadable(String),
    /// It is what the rule reads, but no program or form can be made of it.
    Unfit(String),
    TooLarge,
    /// A program took too long, or all that it may have.
    Exhausted,
    /// There is too much to be changed already.
    NoRoom,
}

impl From<Stop<Fault>> for Fault {
    fn from(stop: Stop<Fault>) -> Fault {
        match stop {
            Stop::TooLong => Fault::TooLarge,
            Stop::Change(fault) => fault,
        }
    }
}

impl Rule {
    pub fn is_for_status(&self, status: u16) -> bool {
        self.statuses.is_empty()
            || self.statuses.iter().any(|(first, last)| (*first..=*last).contains(&status))
    }

    /// How its bodies are told into records, if they are changed record by record.
    pub fn records(&self) -> Option<Records> {
        let form = match self.from {
            BodyForm::Lines => Form::Lines,
            BodyForm::Events => Form::Events,
            _ => return None,
        };
        Some(Records::new(form, self.most))
    }

    /// Whether it has to be applied away from the shard, whatever the size of the body.
    pub fn blocks(&self) -> bool {
        self.work.iter().any(|work| matches!(work, Work::Jq { .. }))
    }

    /// The media type of what comes of it, if that changes.
    pub fn new_type(&self) -> Option<&'static str> {
        match (self.from, self.to) {
            (from, to) if from == to => None,
            (_, BodyForm::Form) => Some("application/x-www-form-urlencoded"),
            _ => Some("application/json"),
        }
    }

    /// Decodes a whole body, within the rule's bound.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn decoded(&self, codings: &[Coding], body: &[u8]) -> Result<Vec<u8>, Fault> {
        // Of records `most` bounds each.
        let most = if self.records().is_some() { MAX_CHANGED_BODY } else { self.most as u32 };
        decode_all(codings, body, u64::from(most)).map_err(|error| match error {
            Undecodable::TooLarge => Fault::TooLarge,
            Undecodable::Malformed => {
                Fault::Unreadable("it is not encoded as its Content-Encoding says".into())
            }
        })
    }

    /// What becomes of a whole body, of records or not.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn change_all(&self, body: &[u8], known: &Known, jq: &Workers) -> Result<Vec<u8>, Fault> {
        let Some(mut records) = self.records() else { return self.change(body, known, jq) };
        let mut out = Vec::with_capacity(body.len());
        let mut change = |record: &[u8]| self.change_record(record, known, jq);
        records.pass(body, true, &mut change, &mut out).map_err(Fault::from)?;
        Ok(out)
    }

    /// What becomes of one record.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn change_record(
        &self,
        record: &[u8],
        known: &Known,
        jq: &Workers,
    ) -> Result<Option<Vec<u8>>, Fault> {
        match self.change(record, known, jq) {
            Ok(changed) => Ok(Some(changed)),
            // Such as `[DONE]`.
            Err(Fault::Unreadable(_)) if self.pass => Ok(Some(record.to_vec())),
            Err(fault) => Err(fault),
        }
    }

    /// What becomes of a whole body, or of one record.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn change(&self, body: &[u8], known: &Known, jq: &Workers) -> Result<Vec<u8>, Fault> {
        let mut value = match self.from {
            BodyForm::Json | BodyForm::Lines | BodyForm::Events => json(body)?,
            BodyForm::Form => form::read(body).map_err(|why| Fault::Unreadable(why.into()))?,
            BodyForm::Xml => {
                xml::read(body, &self.arrays).map_err(|why| Fault::Unreadable(why.into()))?
            }
        };
        for work in &self.work {
            match work {
                Work::Steps(list) => {
                    steps::apply(list, &mut value, known).map_err(|_| Fault::TooLarge)?;
                }
                Work::Jq { program, timeout_ms } => {
                    let ran = match jq.run(program, &value.to_vec(), *timeout_ms) {
                        Ran::Value(out) => out,
                        Ran::Failed(Failed::TooLarge) => return Err(Fault::TooLarge),
                        Ran::Failed(Failed::Error(why)) => return Err(Fault::Unfit(why)),
                        Ran::Late | Ran::Gone => return Err(Fault::Exhausted),
                    };
                    // What jq gives may be none: NaN, for one.
                    value = json(&ran)?.into_owned();
                }
            }
        }
        match self.to {
            BodyForm::Form => form::write(&value).map_err(|why| Fault::Unfit(why.into())),
            _ => Ok(value.to_vec()),
        }
    }
}

fn json(body: &[u8]) -> Result<Json<'_>, Fault> {
    Json::parse(body).map_err(|error| Fault::Unreadable(format!("this is no JSON: {error}")))
}

const _: () = assert!(limits::PAYLOAD_ADDED > limits::PAYLOAD_INLINE);
