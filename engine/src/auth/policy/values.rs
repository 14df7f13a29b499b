//! Values that CEL does not have: patterns and networks that were read when the policy was compiled, and
//! maps that look into the request instead of being made from it.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::net::IpAddr;
use std::str::FromStr;

use cel::common::traits::{Container, Indexer};
use cel::common::types::{
    CelBool, CelDouble, CelInt, CelList, CelMap, CelNull, CelString, CelUInt, MAP_TYPE,
    STRING_TYPE, Type,
};
use cel::common::value::{CowVal, StaticVal, Val};
use cel::{Env, ExecutionError};
use contract::snapshot::Cidr;
use regex::{Regex, RegexBuilder};
use serde_json::Value as Json;

use super::super::credentials;
use crate::limits;
use crate::message::{Field, Name};
use crate::rewrite;

type Result<T> = std::result::Result<T, ExecutionError>;

static PATTERN: Type = Type::new_unspecified_type("pattern");
static NETWORK: Type = Type::new_unspecified_type("network");

/// Declares the functions that take them.
pub fn declare(env: &mut Env) {
    let (pattern, network) = (|| PATTERN.to_owned(), || NETWORK.to_owned());
    let declare = |env: &mut Env| {
        env.add_overload("matches", "matches_pattern", vec![STRING_TYPE, pattern()], matches)?;
        let id = "string_matches_pattern";
        env.add_member_overload("matches", id, STRING_TYPE, vec![pattern()], matches)?;
        env.add_overload("ip_in", "ip_in_network", vec![STRING_TYPE, network()], ip_in)?;
        env.add_overload("ip_in", "ip_in_text", vec![STRING_TYPE, STRING_TYPE], ip_in)
    };
    declare(env).expect("the standard library has none of them for these types");
}

/// `text.matches(pattern)`: whether the pattern is somewhere in the text.
fn matches<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [text, pattern] = pair("matches", &arguments)?;
    match (text.downcast_ref::<CelString>(), pattern.downcast_ref::<Pattern>()) {
        (Some(text), Some(Pattern(pattern))) => Ok(truth(pattern.is_match(text.inner()))),
        _ => Err(ExecutionError::function_error("matches", "wants a text")),
    }
}

/// `ip_in(address, network)`.
fn ip_in<'b, 'v>(arguments: Vec<CowVal<'b, 'v>>) -> Result<CowVal<'b, 'v>> {
    let [address, network] = pair("ip_in", &arguments)?;
    let no_address = || ExecutionError::function_error("ip_in", "no address");
    let no_network = || ExecutionError::function_error("ip_in", "no network");
    let address = address.downcast_ref::<CelString>().ok_or_else(no_address)?;
    let address: IpAddr = address.inner().parse().map_err(|_| no_address())?;
    let network = match network.downcast_ref::<Network>() {
        Some(Network(network)) => *network,
        None => {
            let text = network.downcast_ref::<CelString>().ok_or_else(no_network)?;
            text.inner().parse::<Network>().map_err(|_| no_network())?.0
        }
    };
    Ok(truth(network.contains(address)))
}

fn pair<'a, T>(function: &str, arguments: &'a [T]) -> Result<[&'a T; 2]> {
    match arguments {
        [one, two] => Ok([one, two]),
        _ => Err(ExecutionError::function_error(function, "wants two arguments")),
    }
}

fn truth<'b, 'v>(value: bool) -> CowVal<'b, 'v> {
    CowVal::owned(CelBool::from(value))
}

/// A regular expression.
#[derive(Clone, Debug)]
pub struct Pattern(Regex);

impl FromStr for Pattern {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Pattern, String> {
        let regex = RegexBuilder::new(text).size_limit(limits::POLICY_PATTERN).build();
        regex.map(Pattern).map_err(|error| format!("the pattern cannot be used: {error}"))
    }
}

/// Addresses with the same beginning, or a single one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(Cidr);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Network, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let network: Option<IpAddr> = address.parse().ok();
        let most = network.map_or(0, |network| if network.is_ipv4() { 32 } else { 128 });
        let prefix = match prefix {
            None => Some(most),
            Some(digits) if digits.bytes().all(|byte| byte.is_ascii_digit()) => digits.parse().ok(),
            Some(_) => None,
        };
        let prefix = prefix.filter(|prefix| *prefix <= most);
        let whole = network.zip(prefix).map(|(network, prefix)| Network(Cidr { network, prefix }));
        whole.ok_or_else(|| format!("`{text}` is no network; write one like `10.0.0.0/8`"))
    }
}

macro_rules! constant {
    ($name:ident, $of:ident) => {
        impl Val for $name {
            fn get_type(&self) -> &Type {
                &$of
            }

            fn cel_type() -> &'static Type {
                &$of
            }

            fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v> {
                Box::new(self.clone())
            }

            fn as_any(&self) -> Option<&dyn Any> {
                Some(self)
            }
        }

        impl StaticVal for $name {}
    };
}

constant!(Pattern, PATTERN);
constant!(Network, NETWORK);

/// A map that is looked into by names.
pub trait Lookup: Clone + std::fmt::Debug + Send + Sync {
    /// # Errors
    /// There is nothing of that name, or nobody knows which of several is meant.
    fn find<'v>(&self, name: &str) -> Result<CowVal<'v, 'v>>
    where
        Self: 'v;
}

/// One of them, as CEL sees it.
#[derive(Clone, Debug)]
pub struct Lazy<T>(pub T);

impl<T: Lookup> Val for Lazy<T> {
    fn get_type(&self) -> &Type {
        &MAP_TYPE
    }

    fn cel_type() -> &'static Type {
        &MAP_TYPE
    }

    fn as_container(&self) -> Option<&dyn Container> {
        Some(self)
    }

    fn as_indexer<'b, 'v>(&'b self) -> Option<&'b (dyn Indexer + 'v)>
    where
        Self: 'v,
    {
        Some(self)
    }

    fn clone_as_boxed<'v>(&self) -> Box<dyn Val + 'v>
    where
        Self: 'v,
    {
        Box::new(self.clone())
    }
}

impl<T: Lookup> Indexer for Lazy<T> {
    fn get<'b, 'v>(&'b self, key: &dyn Val) -> Result<CowVal<'b, 'v>>
    where
        Self: 'v,
    {
        Ok(CowVal::Owned(self.0.find(name(key)?)?.into_owned()))
    }

    fn steal<'v>(self: Box<Self>, key: &dyn Val) -> Result<Box<dyn Val + 'v>>
    where
        Self: 'v,
    {
        Ok(self.0.find(name(key)?)?.into_owned())
    }
}

impl<T: Lookup> Container for Lazy<T> {
    fn contains(&self, key: &dyn Val) -> Result<bool> {
        match self.0.find(name(key)?) {
            Ok(_) => Ok(true),
            Err(ExecutionError::NoSuchKey(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn name(key: &dyn Val) -> Result<&str> {
    let wrong = || ExecutionError::UnexpectedType {
        got: key.get_type().name().into(),
        want: "string".into(),
    };
    key.downcast_ref::<CelString>().map(|key| key.inner()).ok_or_else(wrong)
}

/// What is no UTF-8 never equals what a policy may want.
pub fn text<'v>(bytes: &'v [u8]) -> CowVal<'v, 'v> {
    CowVal::owned(CelString::from(String::from_utf8_lossy(bytes)))
}

/// The fields of a request by their names, which have no case. Several lines are one value with commas
/// (RFC 9110 §5.3).
#[derive(Clone, Copy, Debug)]
pub struct Headers<'a> {
    pub fields: &'a [Field],
    pub bytes: &'a [u8],
    /// The peer may say who calls.
    pub trusted: bool,
}

impl Lookup for Headers<'_> {
    fn find<'v>(&self, name: &str) -> Result<CowVal<'v, 'v>>
    where
        Self: 'v,
    {
        let (wanted, bytes) = (name.as_bytes(), self.bytes);
        // Who calls is told by `consumer`; what clients say of it would deceive.
        if rewrite::is_identity(wanted) && !self.trusted {
            return Err(ExecutionError::no_such_key(name));
        }
        let id = Name::classify(wanted);
        let same = |field: &&Field| {
            field.id == id
                && !field.drop
                && (id != Name::Other || field.name.of(bytes).eq_ignore_ascii_case(wanted))
        };
        let mut values = self.fields.iter().filter(same).map(|field| field.value.of(bytes));
        let first = values.next().ok_or_else(|| ExecutionError::no_such_key(name))?;
        let Some(second) = values.next() else { return Ok(text(first)) };
        let mut joined = [first, second].join(&b", "[..]);
        values.for_each(|value| {
            joined.extend_from_slice(b", ");
            joined.extend_from_slice(value);
        });
        Ok(CowVal::owned(CelString::from(String::from_utf8_lossy(&joined).into_owned())))
    }
}

/// The parameters of a query, decoded. One that comes twice is an error: the policy might judge the
/// one and the upstream take the other.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a>(pub &'a [u8]);

impl Lookup for Query<'_> {
    fn find<'v>(&self, name: &str) -> Result<CowVal<'v, 'v>>
    where
        Self: 'v,
    {
        let mut values = credentials::parameters(self.0)
            .filter(|(key, _)| credentials::decoded(key) == name.as_bytes())
            .map(|(_, value)| value);
        let first = values.next().ok_or_else(|| ExecutionError::no_such_key(name))?;
        if values.next().is_some() {
            return Err(ExecutionError::function_error("request.query", "twice"));
        }
        let decoded = match credentials::decoded(first) {
            Cow::Borrowed(value) => String::from_utf8_lossy(value),
            Cow::Owned(value) => String::from_utf8_lossy(&value).into_owned().into(),
        };
        Ok(CowVal::owned(CelString::from(decoded)))
    }
}

/// The claims of a token.
#[derive(Clone, Copy, Debug)]
pub struct Claims<'a>(pub Option<&'a serde_json::Map<String, Json>>);

impl Lookup for Claims<'_> {
    fn find<'v>(&self, name: &str) -> Result<CowVal<'v, 'v>>
    where
        Self: 'v,
    {
        let claim = self.0.and_then(|claims| claims.get(name));
        let claim = claim.ok_or_else(|| ExecutionError::no_such_key(name))?;
        let mut left = limits::POLICY_ITEMS;
        Ok(CowVal::Owned(value(claim, &mut left)?))
    }
}

/// A claim, of which there are `left` items at most.
fn value<'v>(from: &'v Json, left: &mut usize) -> Result<Box<dyn Val + 'v>> {
    let too_many = || ExecutionError::function_error("claims", "too many items");
    *left = left.checked_sub(1).ok_or_else(too_many)?;
    Ok(match from {
        Json::Null => Box::new(CelNull),
        Json::Bool(value) => Box::new(CelBool::from(*value)),
        Json::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => Box::new(CelInt::from(number)),
            (_, Some(number), _) => Box::new(CelUInt::from(number)),
            (_, _, number) => Box::new(CelDouble::from(number.unwrap_or(f64::NAN))),
        },
        Json::String(text) => Box::new(CelString::from(text.as_str())),
        Json::Array(items) => {
            let items = items.iter().map(|item| value(item, left));
            Box::new(CelList::from(items.collect::<Result<Vec<_>>>()?))
        }
        Json::Object(entries) => {
            let entry = |(key, item): (&'v String, &'v Json)| {
                let key = CelString::from(key.as_str());
                Ok((cel::common::types::CelMapKey::String(key), value(item, left)?))
            };
            Box::new(CelMap::from(entries.iter().map(entry).collect::<Result<HashMap<_, _>>>()?))
        }
    })
}

/// Texts as a list.
pub fn texts<'v>(from: &'v [Box<str>]) -> Option<CowVal<'v, 'v>> {
    if from.len() > limits::POLICY_ITEMS {
        return None;
    }
    let text = |text: &'v str| Box::new(CelString::from(text)) as Box<dyn Val + 'v>;
    let texts = from.iter().map(|one| text(one));
    Some(CowVal::owned(CelList::from(texts.collect::<Vec<_>>())))
}
