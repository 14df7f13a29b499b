//! The operators and functions of policies, and what they take.

use cel::common::ast::operators;

use super::check::Kind;

type Typed = Result<Kind, String>;

/// How CEL writes an operator.
fn sign(name: &str) -> &str {
    match name {
        operators::INDEX => "[]",
        operators::CONDITIONAL => "?:",
        name => name.trim_matches(['_', '@']),
    }
}

/// The result of an operator; `None`: it is none. `appends`: a loop adds to its own result.
pub fn operator(name: &str, kinds: &[Kind], appends: bool) -> Option<Typed> {
    let wrong = || {
        let kinds: Vec<String> = kinds.iter().map(Kind::to_string).collect();
        Some(Err(format!("`{}` does not go with {}", sign(name), kinds.join(" and "))))
    };
    let ok = |kind: Kind| Some(Ok(kind));
    let (one, two) = (kinds.first().unwrap_or(&Kind::Dyn), kinds.get(1).unwrap_or(&Kind::Dyn));
    let any = |kind: &Kind| *kind == Kind::Dyn;
    match name {
        operators::LOGICAL_AND
        | operators::LOGICAL_OR
        | operators::LOGICAL_NOT
        | operators::NOT_STRICTLY_FALSE => {
            if kinds.iter().all(|kind| any(kind) || *kind == Kind::Bool) {
                ok(Kind::Bool)
            } else {
                wrong()
            }
        }
        operators::EQUALS | operators::NOT_EQUALS if one.fits(two) => ok(Kind::Bool),
        operators::LESS
        | operators::LESS_EQUALS
        | operators::GREATER
        | operators::GREATER_EQUALS => {
            let ordered = |kind: &Kind| !matches!(kind, Kind::List(_) | Kind::Map(_) | Kind::Null);
            if one.fits(two) && ordered(one) && ordered(two) { ok(Kind::Bool) } else { wrong() }
        }
        operators::CONDITIONAL => match kinds {
            [Kind::Bool | Kind::Dyn, one, two] if one == two => ok(one.clone()),
            [Kind::Bool | Kind::Dyn, _, _] => ok(Kind::Dyn),
            _ => wrong(),
        },
        operators::IN => match two {
            Kind::List(element) if one.fits(element) => ok(Kind::Bool),
            Kind::Map(_) if one.fits(&Kind::Text) => ok(Kind::Bool),
            Kind::Dyn => ok(Kind::Bool),
            _ => wrong(),
        },
        operators::INDEX => match (one, two) {
            (Kind::List(element), Kind::Int | Kind::Uint | Kind::Dyn) => ok((**element).clone()),
            (Kind::Map(value), Kind::Text | Kind::Dyn) => ok((**value).clone()),
            (Kind::Dyn, _) => ok(Kind::Dyn),
            _ => wrong(),
        },
        operators::NEGATE => match one {
            Kind::Int | Kind::Double | Kind::Dyn => ok(one.clone()),
            _ => wrong(),
        },
        operators::ADD if appends => ok(one.clone()),
        operators::ADD
        | operators::SUBSTRACT
        | operators::MULTIPLY
        | operators::DIVIDE
        | operators::MODULO => match arithmetic(name, one, two) {
            Some(kind) => ok(kind),
            None => wrong(),
        },
        _ if name.contains('_') && name.starts_with(['_', '@', '!', '-']) => wrong(),
        _ => None,
    }
}

fn arithmetic(name: &str, one: &Kind, two: &Kind) -> Option<Kind> {
    use Kind::{Bytes, Double, Duration, Dyn, Int, Text, Time, Uint};
    Some(match (name, one, two) {
        // Lists are not put together: nothing here may grow with what is sent.
        (_, Kind::List(_) | Kind::Map(_), _) | (_, _, Kind::List(_) | Kind::Map(_)) => return None,
        (_, Dyn, _) | (_, _, Dyn) => Dyn,
        (_, Int, Int) => Int,
        (_, Uint, Uint) => Uint,
        (operators::MODULO, ..) => return None,
        (_, Double, Double) => Double,
        (operators::ADD, Text, Text) => Text,
        (operators::ADD, Bytes, Bytes) => Bytes,
        (operators::ADD, Time, Duration) | (operators::ADD, Duration, Time) => Time,
        (operators::ADD | operators::SUBSTRACT, Duration, Duration) => Duration,
        (operators::SUBSTRACT, Time, Duration) => Time,
        (operators::SUBSTRACT, Time, Time) => Duration,
        _ => return None,
    })
}

/// What a function takes in one place.
#[derive(Clone, Copy)]
enum Takes {
    Text,
    Time,
    /// A text, bytes or a list.
    Sized,
    /// What has one value: no list, no map.
    Scalar,
    /// A text, or something that is read from it.
    Moment,
}

impl Takes {
    fn fits(self, kind: &Kind) -> bool {
        let scalar = !matches!(kind, Kind::List(_) | Kind::Map(_) | Kind::Null);
        *kind == Kind::Dyn
            || match self {
                Takes::Text => *kind == Kind::Text,
                Takes::Time => *kind == Kind::Time,
                Takes::Sized => matches!(kind, Kind::Text | Kind::Bytes | Kind::List(_)),
                Takes::Scalar => scalar,
                Takes::Moment => {
                    matches!(kind, Kind::Text | Kind::Int | Kind::Time | Kind::Duration)
                }
            }
    }
}

/// A function: as `f(x)`, as `x.f()`, or as both.
struct Function {
    name: &'static str,
    global: bool,
    member: bool,
    takes: &'static [Takes],
    /// It can be told a time zone as well.
    zoned: bool,
    gives: Kind,
}

const fn function(name: &'static str, takes: &'static [Takes], gives: Kind) -> Function {
    Function { name, global: true, member: false, takes, zoned: false, gives }
}

const fn member(name: &'static str, takes: &'static [Takes], gives: Kind) -> Function {
    Function { name, global: false, member: true, takes, zoned: false, gives }
}

const fn both(name: &'static str, takes: &'static [Takes], gives: Kind) -> Function {
    Function { name, global: true, member: true, takes, zoned: false, gives }
}

const fn of_time(name: &'static str) -> Function {
    const TIME: &[Takes] = &[Takes::Time];
    Function { name, global: false, member: true, takes: TIME, zoned: true, gives: Kind::Int }
}

static FUNCTIONS: [Function; 24] = [
    both("size", &[Takes::Sized], Kind::Int),
    member("contains", &[Takes::Text, Takes::Text], Kind::Bool),
    member("startsWith", &[Takes::Text, Takes::Text], Kind::Bool),
    member("endsWith", &[Takes::Text, Takes::Text], Kind::Bool),
    both("matches", &[Takes::Text, Takes::Text], Kind::Bool),
    function("ip_in", &[Takes::Text, Takes::Text], Kind::Bool),
    function("bool", &[Takes::Scalar], Kind::Bool),
    function("int", &[Takes::Scalar], Kind::Int),
    function("uint", &[Takes::Scalar], Kind::Uint),
    function("double", &[Takes::Scalar], Kind::Double),
    function("string", &[Takes::Scalar], Kind::Text),
    function("bytes", &[Takes::Scalar], Kind::Bytes),
    function("timestamp", &[Takes::Moment], Kind::Time),
    function("duration", &[Takes::Moment], Kind::Duration),
    of_time("getFullYear"),
    of_time("getMonth"),
    of_time("getDate"),
    of_time("getDayOfMonth"),
    of_time("getDayOfYear"),
    of_time("getDayOfWeek"),
    of_time("getHours"),
    of_time("getMinutes"),
    of_time("getSeconds"),
    of_time("getMilliseconds"),
];

/// The result of a function.
pub fn call(name: &str, is_member: bool, kinds: &[Kind]) -> Typed {
    let Some(function) = FUNCTIONS.iter().find(|function| function.name == name) else {
        let known: Vec<&str> = FUNCTIONS.iter().map(|function| function.name).collect();
        return Err(format!("there is no function `{name}`; there are {}", known.join(", ")));
    };
    if !(is_member && function.member || !is_member && function.global) {
        let form = if function.member { format!("x.{name}()") } else { format!("{name}(x)") };
        return Err(format!("`{name}` is called as `{form}`"));
    }
    let (takes, zone) = match kinds.split_at_checked(function.takes.len()) {
        Some((kinds, zone)) if zone.len() <= usize::from(function.zoned) => (kinds, zone),
        _ => return Err(format!("`{name}` takes {} arguments", function.takes.len())),
    };
    let unfit = function.takes.iter().zip(takes).find(|(takes, kind)| !takes.fits(kind));
    let unfit = unfit.map(|(_, kind)| kind);
    match unfit.or_else(|| zone.iter().find(|kind| !Takes::Text.fits(kind))) {
        Some(kind) => Err(format!("`{name}` does not take a {kind}")),
        None => Ok(function.gives.clone()),
    }
}
