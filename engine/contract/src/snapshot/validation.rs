//! What requests must look like: operations of described APIs, their parameters and bodies.

/// Index into [`Validation::schemas`].
pub type SchemaIndex = u32;
/// Index into [`Validation::apis`].
pub type ApiIndex = u32;

/// What routes hold requests against; shared by all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validation {
    /// JSON Schemas (draft 2020-12) as JSON, each whole: what it refers to is inside of it.
    pub schemas: Vec<String>,
    pub apis: Vec<Api>,
}

/// The operations of an API.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Api {
    pub name: String,
    pub operations: Vec<Operation>,
}

/// One operation: a method on the paths of a template.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Operation {
    /// Upper case. Empty: any.
    pub method: String,
    /// Such as `/users/{id}`, from the beginning of the path. Empty: any path.
    pub template: String,
    pub parameters: Vec<Parameter>,
    /// `None`: nothing is known of its body.
    pub body: Option<Body>,
}

/// One parameter of an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Header names are lower case.
    pub name: String,
    pub place: Place,
    pub required: bool,
    pub form: Form,
    /// What its value must be; `None`: only whether it is there counts.
    pub schema: Option<SchemaIndex>,
}

/// Where a parameter stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the template, as `{name}`.
    Path,
    Query,
    Header,
    Cookie,
}

/// How a parameter's value is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// One value.
    Scalar(Kinds),
    /// A list: the parameter is there once for each of them.
    Repeated(Kinds),
    /// A list in one value, with this byte between them.
    Separated(u8, Kinds),
    /// An object: `name[key]=value`, with the kinds of the keys that are known.
    Deep(Vec<(String, Kinds)>),
    /// JSON.
    Json,
}

/// What a text may stand for in JSON, as bits. [`Kinds::UNKNOWN`]: any of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds(pub u8);

impl Kinds {
    pub const UNKNOWN: Kinds = Kinds(0);
    pub const TEXT: Kinds = Kinds(1);
    pub const NUMBER: Kinds = Kinds(2);
    pub const BOOL: Kinds = Kinds(4);
    pub const NULL: Kinds = Kinds(8);
    /// All bits that there are.
    pub const ALL: u8 = 15;

    pub fn has(self, kind: Kinds) -> bool {
        self.0 & kind.0 != 0
    }
}

/// What the body of an operation must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Body {
    pub required: bool,
    /// What it may be. Empty: anything.
    pub content: Vec<Content>,
}

/// One type that a body may have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Content {
    /// Lower case, without parameters; `application/*` and `*/*` are ranges, `*+json` is
    /// any kind of JSON.
    pub media_type: String,
    /// What it must be, where it is JSON; `None`: it is not looked at.
    pub schema: Option<SchemaIndex>,
}

/// How a route's requests are held against it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteValidation {
    pub api: ApiIndex,
    pub parameters: bool,
    pub body: bool,
    /// Largest body that is held against a schema, in bytes; past it 413.
    pub max_bytes: u32,
    /// Only count what would be refused.
    pub dry_run: bool,
    /// Refuse what is no operation of the API.
    pub refuse_unknown: bool,
}
