//! `google.protobuf.Struct`, `Value` and `ListValue`, which are any JSON, both ways; and `Any`, as it is
//! printed.

use super::super::schema::{Kind, Known};
use super::super::wire::{self, Fields, WireType, write_bytes, write_tag};
use super::reader::{Next, Reader};
use super::text::{utf8, write_text};
use super::write::Writer;
use super::{Fault, Unprintable, base64};

/// `google.protobuf.Struct`
pub fn structure(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    if reader.peek()? != Next::Object {
        return Err(reader.fault("expected an object"));
    }
    reader.begin_object()?;
    let mut first = true;
    while let Some(key) = reader.key(first)? {
        first = false;
        write_tag(out, 1, WireType::Bytes);
        let entry = wire::begin(out);
        write_bytes(out, 1, key.as_bytes());
        write_tag(out, 2, WireType::Bytes);
        let value = wire::begin(out);
        any_value(reader, out).map_err(|fault| fault.inside(&key))?;
        value.end(out);
        entry.end(out);
    }
    Ok(())
}

/// `google.protobuf.ListValue`
pub fn list_value(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    if reader.peek()? != Next::Array {
        return Err(reader.fault("expected an array"));
    }
    reader.begin_array()?;
    let mut first = true;
    while reader.element(first)? {
        first = false;
        write_tag(out, 1, WireType::Bytes);
        let value = wire::begin(out);
        any_value(reader, out)?;
        value.end(out);
    }
    Ok(())
}

/// `google.protobuf.Value`
pub fn any_value(reader: &mut Reader<'_>, out: &mut Vec<u8>) -> Result<(), Fault> {
    match reader.peek()? {
        Next::Null => {
            reader.null()?;
            write_tag(out, 1, WireType::Varint);
            out.push(0);
        }
        Next::Number => {
            let at = reader.position();
            let number: f64 = reader.number()?.parse().unwrap_or(f64::INFINITY);
            if !number.is_finite() {
                return Err(Fault::at(at, "expected a number of this type"));
            }
            write_tag(out, 2, WireType::Fixed64);
            out.extend_from_slice(&number.to_le_bytes());
        }
        Next::Text => write_bytes(out, 3, reader.text()?.as_bytes()),
        Next::Bool => {
            write_tag(out, 4, WireType::Varint);
            out.push(u8::from(reader.boolean()?));
        }
        Next::Object => {
            write_tag(out, 5, WireType::Bytes);
            let part = wire::begin(out);
            structure(reader, out)?;
            part.end(out);
        }
        Next::Array => {
            write_tag(out, 6, WireType::Bytes);
            let part = wire::begin(out);
            list_value(reader, out)?;
            part.end(out);
        }
    }
    Ok(())
}

impl<'w> Writer<'_, 'w> {
    pub(super) fn any_of(&mut self, url: &str, value: &[u8]) -> Result<(), Unprintable> {
        if url.is_empty() && value.is_empty() {
            self.out.extend_from_slice(b"{}");
            return Ok(());
        }
        let name = url.rsplit_once('/').map(|(_, name)| name).filter(|name| !name.is_empty());
        let name = name.ok_or(Unprintable("an Any has no type"))?;
        let index = self.how.schema.find(name);
        self.open(b'{')?;
        let mut first = true;
        self.item(&mut first);
        write_text("@type", self.out);
        self.colon();
        write_text(url, self.out);
        let mut inner = self.inner();
        match index {
            Some(index) if !has_own_form(inner.how.schema.message(index).known) => {
                inner.fields(value, inner.how.schema.message(index), &mut first)?;
            }
            Some(index) => {
                inner.item(&mut first);
                write_text("value", inner.out);
                inner.colon();
                inner.message(value, index)?;
            }
            // What it is made of is not known here.
            None => {
                inner.item(&mut first);
                write_text("value", inner.out);
                inner.colon();
                inner.out.push(b'"');
                base64::encode(value, inner.out);
                inner.out.push(b'"');
            }
        }
        self.close(b'}', false);
        Ok(())
    }

    pub(super) fn structure(&mut self, bytes: &'w [u8]) -> Result<(), Unprintable> {
        self.open(b'{')?;
        let mut first = true;
        let mut members: Vec<(&[u8], Option<&'w [u8]>)> = Vec::new();
        let mut places = std::collections::HashMap::new();
        let mut fields = Fields::of(bytes);
        while let Some(raw) = fields.next()? {
            if (raw.number, raw.wire) != (1, WireType::Bytes) {
                continue;
            }
            let (mut key, mut value) = (&[][..], None);
            let mut parts = Fields::of(raw.bytes);
            while let Some(part) = parts.next()? {
                match (part.number, part.wire) {
                    (1, WireType::Bytes) => key = part.bytes,
                    (2, WireType::Bytes) => value = Some(part.bytes),
                    _ => {}
                }
            }
            let place = *places.entry(key).or_insert(members.len());
            match members.get_mut(place) {
                Some(member) => member.1 = value,
                None => members.push((key, value)),
            }
        }
        for (key, value) in members {
            self.item(&mut first);
            write_text(utf8(key)?, self.out);
            self.colon();
            self.any_value(value.unwrap_or_default())?;
        }
        self.close(b'}', first);
        Ok(())
    }

    pub(super) fn list_value(&mut self, bytes: &'w [u8]) -> Result<(), Unprintable> {
        self.open(b'[')?;
        let mut first = true;
        let mut fields = Fields::of(bytes);
        while let Some(raw) = fields.next()? {
            if (raw.number, raw.wire) == (1, WireType::Bytes) {
                self.item(&mut first);
                self.any_value(raw.bytes)?;
            }
        }
        self.close(b']', first);
        Ok(())
    }

    pub(super) fn any_value(&mut self, bytes: &'w [u8]) -> Result<(), Unprintable> {
        let mut last = None;
        let mut fields = Fields::of(bytes);
        while let Some(raw) = fields.next()? {
            if matches!(raw.number, 1..=6) {
                last = Some(raw);
            }
        }
        let Some(raw) = last else {
            self.out.extend_from_slice(b"null");
            return Ok(());
        };
        match (raw.number, raw.wire) {
            (2, WireType::Fixed64) => {
                let number = f64::from_bits(raw.value);
                if !number.is_finite() {
                    return Err(Unprintable("a number has no JSON"));
                }
                self.double(number);
            }
            (3, WireType::Bytes) => write_text(utf8(raw.bytes)?, self.out),
            (4, WireType::Varint) => return self.scalar(Kind::Bool, raw),
            (5, WireType::Bytes) => return self.structure(raw.bytes),
            (6, WireType::Bytes) => return self.list_value(raw.bytes),
            _ => self.out.extend_from_slice(b"null"),
        }
        Ok(())
    }
}

/// Whether it is the `value` of an `Any`, and not its fields.
fn has_own_form(known: Known) -> bool {
    !matches!(known, Known::None | Known::HttpBody)
}
