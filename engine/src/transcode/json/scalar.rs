//! Single values, from JSON to the wire format.

use std::borrow::Cow;

use super::super::schema::Kind;
use super::super::wire::{write_varint, zigzag};
use super::base64;
use super::reader::Reader;

/// A value as it goes on the wire.
pub enum Scalar<'a> {
    Varint(u64),
    Fixed64(u64),
    Fixed32(u32),
    Bytes(Cow<'a, [u8]>),
}

impl Scalar<'_> {
    pub fn is_default(&self) -> bool {
        match self {
            Scalar::Varint(value) | Scalar::Fixed64(value) => *value == 0,
            Scalar::Fixed32(value) => *value == 0,
            Scalar::Bytes(bytes) => bytes.is_empty(),
        }
    }

    /// Without its tag.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self {
            Scalar::Varint(value) => write_varint(out, *value),
            Scalar::Fixed64(value) => out.extend_from_slice(&value.to_le_bytes()),
            Scalar::Fixed32(value) => out.extend_from_slice(&value.to_le_bytes()),
            Scalar::Bytes(bytes) => {
                write_varint(out, bytes.len() as u64);
                out.extend_from_slice(bytes);
            }
        }
    }
}

/// A number in quotes, or of a path or query: as JSON writes numbers.
pub fn text_scalar(text: &str, kind: Kind) -> Option<Scalar<'static>> {
    match kind {
        Kind::String => return Some(Scalar::Bytes(Cow::Owned(text.as_bytes().to_vec()))),
        Kind::Bytes => {
            return base64::decode(text.as_bytes()).map(|b| Scalar::Bytes(Cow::Owned(b)));
        }
        Kind::Double | Kind::Float => {
            let special = match text {
                "NaN" => Some(f64::NAN),
                "Infinity" => Some(f64::INFINITY),
                "-Infinity" => Some(f64::NEG_INFINITY),
                _ => None,
            };
            if let Some(number) = special {
                return Some(match kind {
                    Kind::Double => Scalar::Fixed64(number.to_bits()),
                    _ => Scalar::Fixed32((number as f32).to_bits()),
                });
            }
        }
        _ => {}
    }
    let mut reader = Reader::new(text.as_bytes()).ok()?;
    let number = reader.number().ok().filter(|number| number.len() == text.len())?;
    number_scalar(number, kind)
}

/// `text` is a number of JSON.
pub fn number_scalar(text: &str, kind: Kind) -> Option<Scalar<'static>> {
    const I32: (i64, u64) = (i32::MIN as i64, i32::MAX as u64);
    const I64: (i64, u64) = (i64::MIN, i64::MAX as u64);
    let whole = |(least, most): (i64, u64)| whole_number(text, least, most);
    Some(match kind {
        Kind::Int32 => Scalar::Varint(whole(I32)? as u64),
        Kind::Int64 => Scalar::Varint(whole(I64)? as u64),
        Kind::Uint32 => Scalar::Varint(whole((0, u64::from(u32::MAX)))? as u64),
        Kind::Uint64 => Scalar::Varint(whole((0, u64::MAX))? as u64),
        Kind::Sint32 => Scalar::Varint(zigzag(whole(I32)? as i64)),
        Kind::Sint64 => Scalar::Varint(zigzag(whole(I64)? as i64)),
        Kind::Fixed32 => Scalar::Fixed32(whole((0, u64::from(u32::MAX)))? as u32),
        Kind::Fixed64 => Scalar::Fixed64(whole((0, u64::MAX))? as u64),
        Kind::Sfixed32 => Scalar::Fixed32(whole(I32)? as u32),
        Kind::Sfixed64 => Scalar::Fixed64(whole(I64)? as u64),
        Kind::Double => {
            let number: f64 = text.parse().ok().filter(|number: &f64| number.is_finite())?;
            Scalar::Fixed64(number.to_bits())
        }
        Kind::Float => {
            let number: f32 = text.parse().ok().filter(|number: &f32| number.is_finite())?;
            Scalar::Fixed32(number.to_bits())
        }
        Kind::Bool
        | Kind::String
        | Kind::Bytes
        | Kind::Message(_)
        | Kind::Group(_)
        | Kind::Enum(_) => return None,
    })
}

/// A whole number within bounds, however it is written: `1e5` and `100000.0` are.
pub fn whole_number(text: &str, least: i64, most: u64) -> Option<i128> {
    let number: i128 = match text.parse() {
        Ok(number) => number,
        Err(_) => {
            let number: f64 = text.parse().ok()?;
            if number.fract() != 0.0 || number.abs() > 2e19 {
                return None;
            }
            number as i128
        }
    };
    (i128::from(least)..=i128::from(most)).contains(&number).then_some(number)
}
