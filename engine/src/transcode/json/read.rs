//! From JSON to the wire format.

use std::borrow::Cow;

use super::super::schema::{Enum, Field, Kind, Known, Message, MessageIndex, Schema, Shape};
use super::super::wire::{self, WireType, write_bytes, write_tag, write_varint};
use super::reader::{Next, Reader};
use super::scalar::{Scalar, number_scalar, text_scalar, whole_number};
use super::values::{any_value, list_value, structure};
use super::{Fault, base64, known};

/// How JSON is read.
#[derive(Clone, Copy, Debug)]
pub struct Reading<'s> {
    pub schema: &'s Schema,
    /// Fields and names of enums that are not known are passed over.
    pub ignore_unknown: bool,
    /// Names of enums in any case.
    pub any_case: bool,
}

/// Places that have been seen.
#[derive(Default)]
struct Seen {
    first: u64,
    more: Vec<u16>,
}

impl Seen {
    /// Whether it is new.
    fn insert(&mut self, place: usize) -> bool {
        if place < 64 {
            let bit = 1 << place;
            let new = self.first & bit == 0;
            self.first |= bit;
            return new;
        }
        let place = place as u16;
        match self.more.binary_search(&place) {
            Ok(_) => false,
            Err(at) => {
                self.more.insert(at, place);
                true
            }
        }
    }
}

impl<'s> Reading<'s> {
    /// Appends the message that `text` is.
    ///
    /// # Errors
    /// It is no JSON, or not of that message.
    pub fn message(
        &self,
        text: &[u8],
        index: MessageIndex,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let mut reader = Reader::new(text)?;
        self.value(&mut reader, index, out)?;
        reader.end()
    }

    /// Appends the field whose value `text` is.
    ///
    /// # Errors
    /// It is no JSON, or not of that field.
    pub fn field(&self, text: &[u8], field: &Field, out: &mut Vec<u8>) -> Result<(), Fault> {
        let mut reader = Reader::new(text)?;
        self.member(&mut reader, field, out, &mut Seen::default())?;
        reader.end()
    }

    /// Appends the field that a text of a path or query stands for. Numbers need no quotes there, and
    /// messages are those that are texts in JSON.
    ///
    /// # Errors
    /// It is not of that field.
    pub fn parameter(&self, text: &str, field: &Field, out: &mut Vec<u8>) -> Result<(), Fault> {
        let problem = Fault::at(0, "this is not what the field takes");
        if let Kind::Message(index) = field.kind {
            let message = self.schema.message(index);
            write_tag(out, field.number, WireType::Bytes);
            let part = wire::begin(out);
            match message.known {
                Known::Wrapper => match message.fields.first() {
                    Some(inner) => self.parameter(text, inner, out)?,
                    None => return Err(problem),
                },
                Known::Value => write_bytes(out, 3, text.as_bytes()),
                _ => self.text_form(text, message, out).ok_or(problem)?,
            }
            part.end(out);
            return Ok(());
        }
        let scalar = match field.kind {
            Kind::Bool => match text {
                "true" => Scalar::Varint(1),
                "false" => Scalar::Varint(0),
                _ => return Err(problem),
            },
            Kind::Enum(index) => {
                let own = self.schema.enumeration(index);
                let number = own.number_of(text, self.any_case).or_else(|| text.parse().ok());
                match number {
                    Some(number) => Scalar::Varint(i64::from(number) as u64),
                    None if self.ignore_unknown => return Ok(()),
                    None => return Err(problem),
                }
            }
            kind => match text_scalar(text, kind) {
                Some(scalar) => scalar,
                None => return Err(problem),
            },
        };
        // A default, too: it goes before what the body may say of the same field.
        write_tag(out, field.number, field.kind.wire_type());
        scalar.write(out);
        Ok(())
    }

    /// A message in whichever form it has. What is written is its content.
    fn value(
        &self,
        reader: &mut Reader<'_>,
        index: MessageIndex,
        out: &mut Vec<u8>,
    ) -> Result<(), Fault> {
        let message = self.schema.message(index);
        match message.known {
            Known::None | Known::HttpBody => self.object(reader, message, out, false),
            Known::Any => self.any(reader, out),
            Known::Timestamp | Known::Duration | Known::FieldMask => {
                if reader.peek()? != Next::Text {
                    return Err(reader.fault("expected a text"));
                }
                let at = reader.position();
                let text = reader.text()?;
                self.text_form(&text, message, out).ok_or(Fault::at(
                    at,
                    match message.known {
                        Known::Timestamp => "expected a time such as 2024-01-01T00:00:00Z",
                        Known::Duration => "expected a duration such as 1.5s",
                        _ => "expected names of fields with commas between them",
                    },
                ))
            }
            Known::Struct => structure(reader, out),
            Known::ListValue => list_value(reader, out),
            Known::Value => any_value(reader, out),
            Known::Wrapper => match message.fields.first() {
                Some(inner) => self.single(reader, inner, out, false),
                None => Err(reader.fault("the type has no value")),
            },
        }
    }

    /// Messages that are texts in JSON.
    fn text_form(&self, text: &str, message: &Message, out: &mut Vec<u8>) -> Option<()> {
        let (seconds, nanos) = match message.known {
            Known::Timestamp => known::read_timestamp(text)?,
            Known::Duration => known::read_duration(text)?,
            Known::FieldMask => {
                for path in text.split(',').filter(|_| !text.is_empty()) {
                    write_bytes(out, 1, known::snake(path)?.as_bytes());
                }
                return Some(());
            }
            _ => return None,
        };
        if seconds != 0 {
            write_tag(out, 1, WireType::Varint);
            write_varint(out, seconds as u64);
        }
        if nanos != 0 {
            write_tag(out, 2, WireType::Varint);
            write_varint(out, i64::from(nanos) as u64);
        }
        Some(())
    }

    /// `in_any`: `@type` is no field.
    fn object(
        &self,
        reader: &mut Reader<'_>,
        message: &Message,
        out: &mut Vec<u8>,
        in_any: bool,
    ) -> Result<(), Fault> {
        if reader.peek()? != Next::Object {
            return Err(reader.fault("expected an object"));
        }
        reader.begin_object()?;
        let (mut seen, mut oneofs) = (Seen::default(), Seen::default());
        let mut first = true;
        while let Some(key) = reader.key(first)? {
            first = false;
            if in_any && key == "@type" {
                reader.skip()?;
                continue;
            }
            let Some(place) = message.place_named(&key) else {
                if self.ignore_unknown {
                    reader.skip()?;
                    continue;
                }
                return Err(reader.fault("there is no such field").inside(&key));
            };
            let Some(field) = message.fields.get(place) else { continue };
            if !seen.insert(place) {
                return Err(reader.fault("the field is there twice").inside(&key));
            }
            let read = self.member(reader, field, out, &mut oneofs);
            read.map_err(|fault| fault.inside(&key))?;
        }
        Ok(())
    }

    /// The value of a field.
    fn member(
        &self,
        reader: &mut Reader<'_>,
        field: &Field,
        out: &mut Vec<u8>,
        oneofs: &mut Seen,
    ) -> Result<(), Fault> {
        let next = reader.peek()?;
        if next == Next::Null && !(field.shape == Shape::One && self.takes_null(field.kind)) {
            return reader.null();
        }
        if let Some(oneof) = field.oneof
            && !oneofs.insert(usize::from(oneof))
        {
            return Err(reader.fault("another field of the same oneof is there, too"));
        }
        match field.shape {
            Shape::One => self.single(reader, field, out, field.presence),
            Shape::List => self.list(reader, field, out),
            Shape::Map => self.map(reader, field, out),
        }
    }

    fn takes_null(&self, kind: Kind) -> bool {
        match kind {
            Kind::Message(index) => self.schema.message(index).known == Known::Value,
            Kind::Enum(index) => self.schema.enumeration(index).is_null,
            _ => false,
        }
    }

    /// `keep`: a default value is written, too.
    fn single(
        &self,
        reader: &mut Reader<'_>,
        field: &Field,
        out: &mut Vec<u8>,
        keep: bool,
    ) -> Result<(), Fault> {
        match field.kind {
            Kind::Message(index) => {
                write_tag(out, field.number, WireType::Bytes);
                let part = wire::begin(out);
                self.value(reader, index, out)?;
                part.end(out);
            }
            Kind::Group(index) => {
                write_tag(out, field.number, WireType::Group);
                self.value(reader, index, out)?;
                write_varint(out, u64::from(field.number) << 3 | 4);
            }
            kind => {
                if let Some(scalar) = self.scalar(reader, kind)?
                    && (keep || !scalar.is_default())
                {
                    write_tag(out, field.number, kind.wire_type());
                    scalar.write(out);
                }
            }
        }
        Ok(())
    }

    fn list(&self, reader: &mut Reader<'_>, field: &Field, out: &mut Vec<u8>) -> Result<(), Fault> {
        if reader.peek()? != Next::Array {
            return Err(reader.fault("expected an array"));
        }
        reader.begin_array()?;
        let packed = field.packed && field.kind.is_packable();
        let mut part = None;
        let (mut first, mut count) = (true, 0usize);
        while reader.element(first)? {
            first = false;
            let one = |out: &mut Vec<u8>| {
                if reader.peek()? == Next::Null && !self.takes_null(field.kind) {
                    return Err(reader.fault("an element cannot be null"));
                }
                if !packed {
                    return self.single(reader, field, out, true);
                }
                if let Some(scalar) = self.scalar(reader, field.kind)? {
                    scalar.write(out);
                }
                Ok(())
            };
            let mut one = one;
            if packed && part.is_none() {
                write_tag(out, field.number, WireType::Bytes);
                part = Some(wire::begin(out));
            }
            one(out).map_err(|fault| fault.inside(&count.to_string()))?;
            count += 1;
        }
        if let Some(part) = part {
            part.end(out);
        }
        Ok(())
    }

    fn map(&self, reader: &mut Reader<'_>, field: &Field, out: &mut Vec<u8>) -> Result<(), Fault> {
        let Kind::Message(index) = field.kind else {
            return Err(reader.fault("the type has no value"));
        };
        let entry = self.schema.message(index);
        let (Some(key_field), Some(value_field)) = (
            entry.place(1).and_then(|at| entry.fields.get(at)),
            entry.place(2).and_then(|at| entry.fields.get(at)),
        ) else {
            return Err(reader.fault("the type has no value"));
        };
        if reader.peek()? != Next::Object {
            return Err(reader.fault("expected an object"));
        }
        reader.begin_object()?;
        let mut first = true;
        while let Some(key) = reader.key(first)? {
            first = false;
            let start = out.len();
            write_tag(out, field.number, WireType::Bytes);
            let part = wire::begin(out);
            let scalar = match (key_field.kind, &*key) {
                (Kind::String, text) => Some(Scalar::Bytes(Cow::Borrowed(text.as_bytes()))),
                (Kind::Bool, "true") => Some(Scalar::Varint(1)),
                (Kind::Bool, "false") => Some(Scalar::Varint(0)),
                (Kind::Bool, _) => None,
                (kind, text) => text_scalar(text, kind),
            };
            let Some(scalar) = scalar else {
                return Err(reader.fault("this is no key of the map").inside(&key));
            };
            write_tag(out, 1, key_field.kind.wire_type());
            scalar.write(out);
            if reader.peek()? == Next::Null && !self.takes_null(value_field.kind) {
                return Err(reader.fault("a value of a map cannot be null").inside(&key));
            }
            let before = out.len();
            let read = self.single(reader, value_field, out, true);
            read.map_err(|fault| fault.inside(&key))?;
            if out.len() == before {
                // An enum's name that is not known.
                out.truncate(start);
                continue;
            }
            part.end(out);
        }
        Ok(())
    }

    /// `None`: an enum's name that is passed over.
    fn scalar<'a>(&self, reader: &mut Reader<'a>, kind: Kind) -> Result<Option<Scalar<'a>>, Fault> {
        let next = reader.peek()?;
        let at = reader.position();
        let wrong = |problem: &'static str| Err(Fault::at(at, problem));
        Ok(Some(match (kind, next) {
            (Kind::String, Next::Text) => Scalar::Bytes(match reader.text()? {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }),
            (Kind::String, _) => return wrong("expected a text"),
            (Kind::Bytes, Next::Text) => match base64::decode(reader.text()?.as_bytes()) {
                Some(bytes) => Scalar::Bytes(Cow::Owned(bytes)),
                None => return wrong("expected base64"),
            },
            (Kind::Bytes, _) => return wrong("expected base64"),
            (Kind::Bool, Next::Bool) => Scalar::Varint(u64::from(reader.boolean()?)),
            (Kind::Bool, _) => return wrong("expected true or false"),
            (Kind::Enum(index), next) => {
                return self.enumeration(reader, self.schema.enumeration(index), next);
            }
            (kind, Next::Number) => match number_scalar(reader.number()?, kind) {
                Some(scalar) => scalar,
                None => return wrong(expected(kind)),
            },
            (kind, Next::Text) => match text_scalar(&reader.text()?, kind) {
                Some(scalar) => scalar,
                None => return wrong(expected(kind)),
            },
            (kind, _) => return wrong(expected(kind)),
        }))
    }

    fn enumeration<'a>(
        &self,
        reader: &mut Reader<'a>,
        own: &Enum,
        next: Next,
    ) -> Result<Option<Scalar<'a>>, Fault> {
        let at = reader.position();
        let number = match next {
            Next::Text => {
                let name = reader.text()?;
                match own.number_of(&name, self.any_case) {
                    None if self.ignore_unknown => return Ok(None),
                    number => number,
                }
            }
            Next::Number => whole_number(reader.number()?, i64::from(i32::MIN), i32::MAX as u64)
                .map(|number| number as i32),
            Next::Null if own.is_null => {
                reader.null()?;
                Some(0)
            }
            _ => None,
        };
        match number {
            Some(number) => Ok(Some(Scalar::Varint(i64::from(number) as u64))),
            None => Err(Fault::at(at, "expected one of the enum's names, or a number")),
        }
    }

    fn any(&self, reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
        if reader.peek()? != Next::Object {
            return Err(reader.fault("expected an object"));
        }
        // Its type need not come first.
        let mut ahead = reader.clone();
        ahead.begin_object()?;
        let (mut first, mut url) = (true, None);
        while let Some(key) = ahead.key(first)? {
            first = false;
            if key == "@type" {
                if url.is_some() {
                    return Err(ahead.fault("the field is there twice").inside("@type"));
                }
                url = Some(ahead.text().map_err(|fault| fault.inside("@type"))?);
            } else {
                ahead.skip()?;
            }
        }
        if first {
            return reader.skip();
        }
        let Some(url) = url else { return Err(reader.fault("`@type` is missing")) };
        let name = url.rsplit_once('/').map(|(_, name)| name);
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err(reader.fault("expected a URL whose path is a type").inside("@type"));
        };
        write_bytes(out, 1, url.as_bytes());
        let start = out.len();
        write_tag(out, 2, WireType::Bytes);
        let part = wire::begin(out);
        let empty = out.len();
        match self.schema.find(name) {
            Some(index) => {
                let message = self.schema.message(index);
                match message.known {
                    Known::None | Known::HttpBody => self.object(reader, message, out, true)?,
                    _ => {
                        self.any_member(reader, out, |reader, out| self.value(reader, index, out))?
                    }
                }
            }
            // As it is written where its type is not known.
            None => self.any_member(reader, out, |reader, out| {
                let unknown = reader.fault("the type is not known");
                if reader.peek()? != Next::Text {
                    return Err(unknown);
                }
                out.extend(base64::decode(reader.text()?.as_bytes()).ok_or(unknown)?);
                Ok(())
            })?,
        }
        match out.len() == empty {
            true => out.truncate(start),
            false => part.end(out),
        }
        Ok(())
    }

    /// `{"@type": .., "value": ..}`
    fn any_member(
        &self,
        reader: &mut Reader<'_>,
        out: &mut Vec<u8>,
        mut read: impl FnMut(&mut Reader<'_>, &mut Vec<u8>) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        reader.begin_object()?;
        let (mut first, mut seen) = (true, false);
        while let Some(key) = reader.key(first)? {
            first = false;
            match &*key {
                "@type" => reader.skip()?,
                "value" if !seen => {
                    seen = true;
                    read(reader, out).map_err(|fault| fault.inside("value"))?;
                }
                "value" => return Err(reader.fault("the field is there twice").inside("value")),
                _ if self.ignore_unknown => reader.skip()?,
                _ => return Err(reader.fault("there is no such field").inside(&key)),
            }
        }
        match seen {
            true => Ok(()),
            false => Err(reader.fault("`value` is missing")),
        }
    }
}

fn expected(kind: Kind) -> &'static str {
    match kind {
        Kind::Double | Kind::Float => "expected a number of this type",
        _ => "expected a whole number of this type",
    }
}
