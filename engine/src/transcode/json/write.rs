//! From the wire format to JSON.

use super::super::schema::{Field, Kind, Known, Message, MessageIndex, Schema, Shape};
use super::super::wire::{Fields, Raw, WireType, unzigzag, varint};
use super::text::{escape, utf8, write_text};
use super::{Unprintable, base64, known};
use crate::limits;
use crate::message::write::decimal;

/// How messages are printed.
#[derive(Clone, Copy, Debug)]
pub struct Printing<'s> {
    pub schema: &'s Schema,
    /// Fields that have no presence also with their default.
    pub always: bool,
    pub enum_numbers: bool,
    /// Fields as the descriptors call them, not in camel case.
    pub proto_names: bool,
    /// On lines of their own.
    pub pretty: bool,
}

/// A field of a message that is being printed.
#[derive(Clone, Copy)]
struct Entry<'w> {
    place: u16,
    raw: Raw<'w>,
}

pub(super) struct Writer<'a, 'w> {
    pub(super) how: Printing<'a>,
    pub(super) out: &'a mut Vec<u8>,
    /// Fields of the messages that are open.
    entries: Vec<Entry<'w>>,
    indent: usize,
    depth: usize,
}

impl Printing<'_> {
    /// Appends `bytes`, a message, as JSON.
    ///
    /// # Errors
    /// It is malformed, or has no JSON.
    pub fn message(
        &self,
        bytes: &[u8],
        index: MessageIndex,
        out: &mut Vec<u8>,
    ) -> Result<(), Unprintable> {
        self.writer(out).message(bytes, index)
    }

    /// Appends one field of the message.
    ///
    /// # Errors
    /// As [`Printing::message`].
    pub fn field(
        &self,
        bytes: &[u8],
        index: MessageIndex,
        place: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Unprintable> {
        let message = self.schema.message(index);
        let Some(field) = message.fields.get(place) else { return Err(NO_VALUE) };
        let mut writer = self.writer(out);
        writer.gather(bytes, message)?;
        writer.entries.retain(|entry| usize::from(entry.place) == place);
        let end = writer.entries.len();
        match (end, field.shape, field.kind) {
            (0, Shape::One, Kind::Message(_) | Kind::Group(_)) => {
                writer.out.extend_from_slice(b"null");
                Ok(())
            }
            (0, ..) => writer.default(field),
            _ => writer.value(field, 0, end),
        }
    }

    /// Appends an `Any` of this type and value.
    pub fn any(&self, url: &str, value: &[u8], out: &mut Vec<u8>) -> Result<(), Unprintable> {
        self.writer(out).any_of(url, value)
    }

    fn writer<'a, 'w>(&'a self, out: &'a mut Vec<u8>) -> Writer<'a, 'w> {
        Writer { how: *self, out, entries: Vec::new(), indent: 0, depth: 0 }
    }
}

const NO_VALUE: Unprintable = Unprintable("the type has no value");

impl<'w> Writer<'_, 'w> {
    /// For bytes that live shorter than those of this one.
    pub(super) fn inner<'b, 'v>(&'b mut self) -> Writer<'b, 'v> {
        let Writer { how, indent, depth, .. } = *self;
        Writer { how, out: self.out, entries: Vec::new(), indent, depth }
    }

    fn line(&mut self) {
        if self.how.pretty {
            self.out.push(b'\n');
            self.out.resize(self.out.len() + 2 * self.indent, b' ');
        }
    }

    pub(super) fn open(&mut self, byte: u8) -> Result<(), Unprintable> {
        self.depth += 1;
        if self.depth > limits::MESSAGE_DEPTH {
            return Err(Unprintable("the message is nested too deeply"));
        }
        self.out.push(byte);
        self.indent += 1;
        Ok(())
    }

    pub(super) fn close(&mut self, byte: u8, empty: bool) {
        self.indent -= 1;
        self.depth -= 1;
        if !empty {
            self.line();
        }
        self.out.push(byte);
    }

    pub(super) fn item(&mut self, first: &mut bool) {
        if !std::mem::replace(first, false) {
            self.out.push(b',');
        }
        self.line();
    }

    pub(super) fn colon(&mut self) {
        self.out.extend_from_slice(if self.how.pretty { b": " } else { b":" });
    }

    pub(super) fn message(
        &mut self,
        bytes: &'w [u8],
        index: MessageIndex,
    ) -> Result<(), Unprintable> {
        let message = self.how.schema.message(index);
        match message.known {
            Known::None | Known::HttpBody => {
                self.open(b'{')?;
                let mut first = true;
                self.fields(bytes, message, &mut first)?;
                self.close(b'}', first);
                Ok(())
            }
            Known::Any => {
                let (mut url, mut value) = (&[][..], &[][..]);
                let mut fields = Fields::of(bytes);
                while let Some(raw) = fields.next()? {
                    match (raw.number, raw.wire) {
                        (1, WireType::Bytes) => url = raw.bytes,
                        (2, WireType::Bytes) => value = raw.bytes,
                        _ => {}
                    }
                }
                self.any_of(utf8(url)?, value)
            }
            Known::Timestamp | Known::Duration => {
                let (mut seconds, mut nanos) = (0, 0);
                let mut fields = Fields::of(bytes);
                while let Some(raw) = fields.next()? {
                    match (raw.number, raw.wire) {
                        (1, WireType::Varint) => seconds = raw.value as i64,
                        (2, WireType::Varint) => nanos = raw.value as i32,
                        _ => {}
                    }
                }
                self.out.push(b'"');
                let written = match message.known {
                    Known::Timestamp => known::write_timestamp(seconds, nanos, self.out),
                    _ => known::write_duration(seconds, nanos, self.out),
                };
                self.out.push(b'"');
                written.ok_or(Unprintable("a time is out of range"))
            }
            Known::FieldMask => {
                self.out.push(b'"');
                let mut first = true;
                let mut fields = Fields::of(bytes);
                while let Some(raw) = fields.next()? {
                    if (raw.number, raw.wire) != (1, WireType::Bytes) {
                        continue;
                    }
                    let path = known::camel(utf8(raw.bytes)?);
                    let path = path.ok_or(Unprintable("a field mask has no JSON"))?;
                    if !std::mem::replace(&mut first, false) {
                        self.out.push(b',');
                    }
                    escape(path.as_bytes(), self.out);
                }
                self.out.push(b'"');
                Ok(())
            }
            Known::Struct => self.structure(bytes),
            Known::ListValue => self.list_value(bytes),
            Known::Value => self.any_value(bytes),
            Known::Wrapper => {
                let Some(field) = message.fields.first() else { return Err(NO_VALUE) };
                let mut last = None;
                let mut fields = Fields::of(bytes);
                while let Some(raw) = fields.next()? {
                    if raw.number == field.number && raw.wire == field.kind.wire_type() {
                        last = Some(raw);
                    }
                }
                match last {
                    Some(raw) => self.scalar(field.kind, raw),
                    None => self.default(field),
                }
            }
        }
    }

    /// Puts the fields of a message on the stack, by their places; of a oneof the last one.
    fn gather(&mut self, bytes: &'w [u8], message: &Message) -> Result<(), Unprintable> {
        let base = self.entries.len();
        let (mut sorted, mut before) = (true, 0);
        let mut fields = Fields::of(bytes);
        while let Some(raw) = fields.next()? {
            let Some(place) = message.place(raw.number) else { continue };
            let Some(field) = message.fields.get(place) else { continue };
            let kind = field.kind;
            let fits = raw.wire == kind.wire_type()
                || (raw.wire == WireType::Bytes
                    && field.shape == Shape::List
                    && kind.is_packable());
            if !fits {
                continue;
            }
            sorted &= place >= before;
            before = place;
            self.entries.push(Entry { place: place as u16, raw });
        }
        if message.oneofs > 0 {
            self.settle_oneofs(base, message);
        }
        if !sorted && let Some(own) = self.entries.get_mut(base..) {
            own.sort_by_key(|entry| entry.place);
        }
        Ok(())
    }

    fn settle_oneofs(&mut self, base: usize, message: &Message) {
        let oneof = |entry: &Entry<'_>| message.fields.get(usize::from(entry.place))?.oneof;
        let mut last: smallvec::SmallVec<[Option<u16>; 8]> =
            smallvec::smallvec![None; message.oneofs];
        let mut clash = false;
        for entry in self.entries.get(base..).unwrap_or_default() {
            if let Some(place) = oneof(entry).and_then(|at| last.get_mut(usize::from(at))) {
                clash |= place.is_some_and(|other| other != entry.place);
                *place = Some(entry.place);
            }
        }
        if clash {
            let mut at = 0;
            self.entries.retain(|entry| {
                at += 1;
                let own =
                    oneof(entry).and_then(|one| last.get(usize::from(one)).copied().flatten());
                at <= base || own.is_none_or(|place| place == entry.place)
            });
        }
    }

    pub(super) fn fields(
        &mut self,
        bytes: &'w [u8],
        message: &Message,
        first: &mut bool,
    ) -> Result<(), Unprintable> {
        let base = self.entries.len();
        self.gather(bytes, message)?;
        let end = self.entries.len();
        let mut at = base;
        let mut next = 0;
        while at < end {
            let Some(place) = self.entries.get(at).map(|entry| usize::from(entry.place)) else {
                break;
            };
            let same = |entry: &&Entry<'_>| usize::from(entry.place) == place;
            let count =
                self.entries.get(at..end).unwrap_or_default().iter().take_while(same).count();
            if self.how.always {
                self.absent(message, next, place, first)?;
            }
            next = place + 1;
            let Some(field) = message.fields.get(place) else { break };
            if self.says_something(field, at, at + count) {
                self.item(first);
                self.name(field);
                self.value(field, at, at + count)?;
            }
            at += count;
        }
        if self.how.always {
            self.absent(message, next, message.fields.len(), first)?;
        }
        self.entries.truncate(base);
        Ok(())
    }

    /// A default value says nothing where there is no presence.
    fn says_something(&self, field: &Field, start: usize, end: usize) -> bool {
        if self.how.always || field.presence || field.shape == Shape::Map {
            return true;
        }
        if field.shape == Shape::List {
            // A packed list may be empty.
            let own = self.entries.get(start..end).unwrap_or_default();
            return !field.kind.is_packable()
                || own
                    .iter()
                    .any(|one| one.raw.wire != WireType::Bytes || !one.raw.bytes.is_empty());
        }
        match end.checked_sub(1).and_then(|last| self.entries.get(last)) {
            Some(Entry { raw, .. }) => match raw.wire {
                WireType::Bytes => !raw.bytes.is_empty() || matches!(field.kind, Kind::Message(_)),
                WireType::Group => true,
                _ => raw.value != 0,
            },
            None => false,
        }
    }

    /// Fields between two places that are not there.
    fn absent(
        &mut self,
        message: &Message,
        from: usize,
        to: usize,
        first: &mut bool,
    ) -> Result<(), Unprintable> {
        for field in message.fields.get(from..to).unwrap_or_default() {
            if !field.presence {
                self.item(first);
                self.name(field);
                self.default(field)?;
            }
        }
        Ok(())
    }

    fn name(&mut self, field: &Field) {
        let name = if self.how.proto_names { &field.name } else { &field.json_name };
        write_text(name, self.out);
        self.colon();
    }

    fn default(&mut self, field: &Field) -> Result<(), Unprintable> {
        match (field.shape, field.kind) {
            (Shape::List, _) => self.out.extend_from_slice(b"[]"),
            (Shape::Map, _) => self.out.extend_from_slice(b"{}"),
            (_, Kind::Enum(index)) => {
                let number = self.how.schema.enumeration(index).default;
                let raw = Raw {
                    number: field.number,
                    wire: WireType::Varint,
                    value: i64::from(number) as u64,
                    bytes: &[],
                };
                return self.scalar(field.kind, raw);
            }
            (_, Kind::Message(_) | Kind::Group(_)) => self.out.extend_from_slice(b"null"),
            (_, kind) => {
                let raw =
                    Raw { number: field.number, wire: kind.wire_type(), value: 0, bytes: &[] };
                return self.scalar(kind, raw);
            }
        }
        Ok(())
    }

    /// The value of a field that stands at these places of the stack.
    fn value(&mut self, field: &Field, start: usize, end: usize) -> Result<(), Unprintable> {
        match field.shape {
            Shape::Map => self.map(field, start, end),
            Shape::List => {
                self.open(b'[')?;
                let mut first = true;
                for at in start..end {
                    let Some(raw) = self.entries.get(at).map(|entry| entry.raw) else { break };
                    let packed = raw.wire == WireType::Bytes && field.kind.is_packable();
                    match packed {
                        true => self.packed(field.kind, raw, &mut first)?,
                        false => {
                            self.item(&mut first);
                            self.element(field.kind, raw)?;
                        }
                    }
                }
                self.close(b']', first);
                Ok(())
            }
            Shape::One => {
                let own = self.entries.get(start..end).unwrap_or_default();
                match (own, field.kind) {
                    (own, Kind::Message(index) | Kind::Group(index)) if own.len() > 1 => {
                        // What is there several times is merged (Protocol Buffers, "Last One Wins").
                        let merged: Vec<&[u8]> = own.iter().map(|entry| entry.raw.bytes).collect();
                        let merged = merged.concat();
                        self.inner().message(&merged, index)
                    }
                    ([.., last], kind) => {
                        let raw = last.raw;
                        self.element(kind, raw)
                    }
                    ([], _) => self.default(field),
                }
            }
        }
    }

    fn packed(&mut self, kind: Kind, list: Raw<'w>, first: &mut bool) -> Result<(), Unprintable> {
        let mut left = list.bytes;
        while !left.is_empty() {
            let width = match kind.wire_type() {
                WireType::Fixed64 => 8,
                WireType::Fixed32 => 4,
                _ => 0,
            };
            let value = match width {
                0 => varint(&mut left)?,
                width => {
                    let bytes = left.get(..width).ok_or(super::super::wire::Malformed)?;
                    left = left.get(width..).unwrap_or_default();
                    bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte))
                }
            };
            self.item(first);
            self.scalar(kind, Raw { wire: kind.wire_type(), value, bytes: &[], ..list })?;
        }
        Ok(())
    }

    fn element(&mut self, kind: Kind, raw: Raw<'w>) -> Result<(), Unprintable> {
        match kind {
            Kind::Message(index) | Kind::Group(index) => self.message(raw.bytes, index),
            kind => self.scalar(kind, raw),
        }
    }

    fn map(&mut self, field: &Field, start: usize, end: usize) -> Result<(), Unprintable> {
        let Kind::Message(index) = field.kind else { return Err(NO_VALUE) };
        let entry = self.how.schema.message(index);
        let (Some(key_field), Some(value_field)) = (
            entry.place(1).and_then(|at| entry.fields.get(at)),
            entry.place(2).and_then(|at| entry.fields.get(at)),
        ) else {
            return Err(NO_VALUE);
        };
        let mut pairs: Vec<(Raw<'w>, Option<Raw<'w>>)> = Vec::with_capacity(end - start);
        // By key, which the last value is for.
        let mut places = std::collections::HashMap::new();
        for at in start..end {
            let Some(raw) = self.entries.get(at).map(|entry| entry.raw) else { break };
            let wire = key_field.kind.wire_type();
            let mut key = Raw { number: 1, wire, value: 0, bytes: &[][..] };
            let mut value = None;
            let mut fields = Fields::of(raw.bytes);
            while let Some(part) = fields.next()? {
                match part.number {
                    1 if part.wire == wire => key = part,
                    2 if part.wire == value_field.kind.wire_type() => value = Some(part),
                    _ => {}
                }
            }
            if end - start == 1 {
                pairs.push((key, value));
                break;
            }
            match places.entry((key.value, key.bytes)) {
                std::collections::hash_map::Entry::Vacant(place) => {
                    place.insert(pairs.len());
                    pairs.push((key, value));
                }
                std::collections::hash_map::Entry::Occupied(place) => {
                    if let Some(pair) = pairs.get_mut(*place.get()) {
                        *pair = (key, value);
                    }
                }
            }
        }
        self.open(b'{')?;
        let mut first = true;
        for (key, value) in pairs {
            self.item(&mut first);
            match key_field.kind {
                Kind::String
                | Kind::Int64
                | Kind::Uint64
                | Kind::Sint64
                | Kind::Fixed64
                | Kind::Sfixed64 => {
                    self.scalar(key_field.kind, key)?;
                }
                kind => {
                    self.out.push(b'"');
                    self.scalar(kind, key)?;
                    self.out.push(b'"');
                }
            }
            self.colon();
            match (value, value_field.kind) {
                (Some(value), kind) => self.element(kind, value)?,
                (None, Kind::Message(index)) => self.message(&[], index)?,
                (None, _) => self.default(value_field)?,
            }
        }
        self.close(b'}', first);
        Ok(())
    }

    pub(super) fn scalar(&mut self, kind: Kind, raw: Raw<'_>) -> Result<(), Unprintable> {
        let value = raw.value;
        match kind {
            Kind::Int32 | Kind::Sfixed32 => self.signed(i64::from(value as i32)),
            Kind::Sint32 => self.signed(i64::from(unzigzag(value & 0xffff_ffff) as i32)),
            Kind::Uint32 | Kind::Fixed32 => decimal(self.out, u64::from(value as u32)),
            Kind::Int64 | Kind::Sfixed64 => self.quoted(|own| own.signed(value as i64)),
            Kind::Sint64 => self.quoted(|own| own.signed(unzigzag(value))),
            Kind::Uint64 | Kind::Fixed64 => self.quoted(|own| decimal(own.out, value)),
            Kind::Bool => self.out.extend_from_slice(if value != 0 { b"true" } else { b"false" }),
            Kind::Double => self.double(f64::from_bits(value)),
            Kind::Float => {
                let number = f32::from_bits(value as u32);
                match number.is_finite() {
                    false => self.double(f64::from(number)),
                    true if number.fract() == 0.0 && number.abs() < 1e7 => {
                        self.whole(number.is_sign_negative(), f64::from(number));
                    }
                    // A number is always JSON.
                    true => drop(serde_json::to_writer(&mut *self.out, &number)),
                }
            }
            Kind::String => write_text(utf8(raw.bytes)?, self.out),
            Kind::Bytes => {
                self.out.push(b'"');
                base64::encode(raw.bytes, self.out);
                self.out.push(b'"');
            }
            Kind::Enum(index) => {
                let own = self.how.schema.enumeration(index);
                let number = value as i32;
                match own.name_of(number).filter(|_| !self.how.enum_numbers) {
                    _ if own.is_null => self.out.extend_from_slice(b"null"),
                    Some(name) => write_text(name, self.out),
                    None => self.signed(i64::from(number)),
                }
            }
            Kind::Message(_) | Kind::Group(_) => return Err(NO_VALUE),
        }
        Ok(())
    }

    fn quoted(&mut self, write: impl FnOnce(&mut Self)) {
        self.out.push(b'"');
        write(self);
        self.out.push(b'"');
    }

    fn signed(&mut self, value: i64) {
        if value < 0 {
            self.out.push(b'-');
        }
        decimal(self.out, value.unsigned_abs());
    }

    fn whole(&mut self, negative: bool, number: f64) {
        if negative {
            self.out.push(b'-');
        }
        decimal(self.out, number.abs() as u64);
    }

    pub(super) fn double(&mut self, number: f64) {
        if number.is_nan() {
            self.out.extend_from_slice(b"\"NaN\"");
        } else if number.is_infinite() {
            let text = if number > 0.0 { &b"\"Infinity\""[..] } else { b"\"-Infinity\"" };
            self.out.extend_from_slice(text);
        } else if number.fract() == 0.0 && number.abs() < 1e15 {
            self.whole(number.is_sign_negative(), number);
        } else {
            // A number is always JSON.
            let _ = serde_json::to_writer(&mut *self.out, &number);
        }
    }
}
