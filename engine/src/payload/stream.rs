//! Bodies that are changed record by record on their way.

use std::sync::Arc;

use super::jq::Workers;
use super::records::Records;
use super::rule::Fault;
use super::template::Known;
use super::{Payload, Rule};
use crate::coding::{Coding, Decoder, Undecodable};
use crate::shard::Shard;

/// One body of records.
pub struct Stream {
    payload: Arc<Payload>,
    of_request: bool,
    at: usize,
    known: Known,
    records: Option<Records>,
    /// Innermost coding last.
    decoders: Vec<Decoder>,
    /// There is no memory for one of them.
    undecodable: bool,
    jq: Arc<Workers>,
}

/// A body that is decoded as it comes may be as long as it likes, as each record has its bound.
const ENDLESS: u64 = u64::MAX;

impl Stream {
    pub fn new(
        payload: Arc<Payload>,
        of_request: bool,
        at: usize,
        codings: Vec<Coding>,
        known: Known,
        shard: &Shard,
    ) -> Stream {
        let decoders = codings.iter().rev().map(|coding| Decoder::new(*coding, ENDLESS));
        let decoders: Result<Vec<_>, _> = decoders.collect();
        let undecodable = decoders.is_err();
        let decoders = decoders.unwrap_or_default();
        let jq = shard.desk().store().jq().clone();
        let mut stream =
            Stream { payload, of_request, at, known, records: None, decoders, undecodable, jq };
        stream.records = stream.rule().records();
        stream
    }

    fn rule(&self) -> &Rule {
        let rules = if self.of_request { &self.payload.request } else { &self.payload.response };
        &rules[self.at]
    }

    /// Appends what becomes of the next part of the body.
    ///
    /// # Errors
    /// The body cannot be changed; what was appended may go on, and nothing after it.
    pub fn pass(&mut self, data: &[u8], end: bool, out: &mut Vec<u8>) -> Result<(), Fault> {
        if self.undecodable {
            return Err(Fault::Exhausted);
        }
        let mut decoded: Option<Vec<u8>> = None;
        for decoder in &mut self.decoders {
            let mut plain = Vec::new();
            let from = decoded.as_deref().unwrap_or(data);
            decoder.pass(from, end, &mut plain).map_err(|error| match error {
                Undecodable::TooLarge => Fault::TooLarge,
                Undecodable::Malformed => {
                    Fault::Unreadable("it is not encoded as its Content-Encoding says".into())
                }
            })?;
            decoded = Some(plain);
        }
        let data = decoded.as_deref().unwrap_or(data);
        let Some(mut records) = self.records.take() else { return Err(Fault::Exhausted) };
        let (rule, known, jq) = (self.rule(), &self.known, &*self.jq);
        let mut change = |record: &[u8]| rule.change_record(record, known, jq);
        let passed = records.pass(data, end, &mut change, out);
        self.records = Some(records);
        passed.map_err(Fault::from)
    }
}
