//! Every operation of the admin listener.

use axum::{
    body::Bytes,
    extract::{Extension, State},
    http::{HeaderMap, Method, StatusCode},
};
use schemars::SchemaGenerator;
use serde_json::{Value, json};

use super::{
    admit::Caller,
    audit, cache, callers, config, consumer_keys,
    entities::{self, ChangeQuery, Kind, ListQuery, PlaceQuery},
    extract::{Params, Place},
    limits,
    model::{
        ApiKey, Applied, Authenticator, CacheState, Certificate, Cluster, Consumer, KeyMade,
        LimitBucket, Listener, ProblemDocument, Route, Running as RunningSpec, Status, TryAnswer,
        Upstream, Validated,
    },
    operation::{JSON, Operation, PATCH, SPEC},
    page::PageQuery,
    probes, rollout, state, trial,
};
use crate::{
    diff::Diff,
    explain::{Explanation, Question},
    rollout::{Rollout, Standing},
    running::Running,
    spec::Role,
    store::{AuditEntry, AuditVerdict, Revision, RevisionLine},
};

/// All of them. `g` keeps the types that they speak of.
pub fn operations(g: &mut SchemaGenerator) -> Vec<Operation> {
    g.subschema_for::<ProblemDocument>();
    let mut all = whole(g);
    for kind in Kind::ALL {
        all.extend(things(kind, g));
    }
    all.extend(keys(g));
    all.extend(questions(g));
    all.extend(rollouts(g));
    all.extend(caches(g));
    all.extend(standing(g));
    all.extend(probes());
    all
}

const OVER: &str = "Only over this revision, such as \"7\".";
const AS_READ: &str = "Only if it is as it was read: the ETag of then, or *.";

/// A text in YAML or JSON; what it must be like is `sluice schema`'s to say.
fn spec_text() -> Value {
    json!({"type": ["object", "string"], "description": "The spec: see `sluice schema`"})
}

fn whole(g: &mut SchemaGenerator) -> Vec<Operation> {
    let revisions =
        |id, method, path, summary: &str| ((method, path), ("revisions", id), summary.to_owned());
    let (at, name, text) = revisions(
        "listRevisions",
        Method::GET,
        "/v1/revisions",
        "The revisions that are kept, newest first",
    );
    let list = Operation::new(at, name, text, config::revisions)
        .query::<config::RevisionsQuery>()
        .answers::<Vec<RevisionLine>>(g, "A page of them")
        .with_fields(&["Link"]);
    let (at, name, text) = revisions(
        "getRevision",
        Method::GET,
        "/v1/revisions/{id}",
        "One revision, without secrets",
    );
    let one = Operation::new(at, name, text, config::revision)
        .answers::<Revision>(g, "The revision")
        .problems(&[(404, "There is no such revision")]);
    let (at, name, text) = revisions(
        "rollback",
        Method::POST,
        "/v1/rollback",
        "Run an earlier revision again, as a new one",
    );
    let back = Operation::new(at, name, text, config::rollback)
        .query::<config::RollbackQuery>()
        .if_match(OVER)
        .change()
        .answers::<Applied>(g, "It runs");
    let read = Operation::new(
        (Method::GET, "/v1/spec"),
        ("spec", "getSpec"),
        "The running spec, without secrets",
        config::spec,
    )
    .answers::<RunningSpec>(g, "The spec")
    .with_fields(&["ETag"]);
    let apply = Operation::new(
        (Method::POST, "/v1/apply"),
        ("spec", "apply"),
        "Make a spec the running one",
        config::apply,
    )
    .query::<config::ApplyQuery>()
    .if_match(OVER)
    .takes(SPEC, spec_text())
    .change()
    .answers::<Applied>(g, "It runs, or did already");
    vec![read, apply, list, one, back]
}

fn things(kind: Kind, g: &mut SchemaGenerator) -> Vec<Operation> {
    let schema = kind.schema(g);
    let (noun, plural) = (kind.noun(), kind.plural());
    let (all, one) = (format!("/v1/spec/{plural}"), format!("/v1/spec/{plural}/{{name}}"));
    let [list_id, get_id, put_id, patch_id, delete_id] = ids(kind);
    let applied = g.subschema_for::<Applied>().to_value();
    let json_of = |schema: &Value| Some(("application/json", schema.clone()));
    let list = Operation::new(
        (Method::GET, all),
        ("spec", list_id),
        format!("The {plural} as configured"),
        move |State(running): State<Running>, query: Params<ListQuery>| {
            entities::list(kind, running, query)
        },
    )
    .query::<ListQuery>()
    .answer(
        StatusCode::OK,
        "A page of them, in the order of the spec",
        json_of(&json!({"type": "array", "items": schema})),
    )
    .with_fields(&["Link"]);
    let get = Operation::new(
        (Method::GET, one.clone()),
        ("spec", get_id),
        format!("One {noun} as configured, without secrets"),
        move |State(running): State<Running>, name: Place<String>| {
            entities::get(kind, running, name)
        },
    )
    .answer(StatusCode::OK, "It", json_of(&schema))
    .with_fields(&["ETag"])
    .problems(&[(404, "There is no such thing")]);
    let put = Operation::new(
        (Method::PUT, one.clone()),
        ("spec", put_id),
        format!("Add a {noun}, or replace it"),
        move |State(running): State<Running>,
              name: Place<String>,
              query: Params<PlaceQuery>,
              caller: Extension<Caller>,
              headers: HeaderMap,
              body: Bytes| {
            entities::put(kind, (running, name, query), (caller, headers), body)
        },
    )
    .takes(JSON, nameless(g, &schema))
    .if_match(AS_READ)
    .if_none_match()
    .change()
    .answer(StatusCode::OK, "It is so", json_of(&applied))
    .with_fields(&["ETag"])
    .answer(StatusCode::CREATED, "It is new", json_of(&applied))
    .with_fields(&["ETag", "Location"]);
    let patch = Operation::new(
        (Method::PATCH, one.clone()),
        ("spec", patch_id),
        format!("Change a {noun} (RFC 7396)"),
        move |State(running): State<Running>,
              name: Place<String>,
              query: Params<PlaceQuery>,
              caller: Extension<Caller>,
              headers: HeaderMap,
              body: Bytes| {
            entities::patch(kind, (running, name, query), (caller, headers), body)
        },
    )
    .takes(PATCH, json!({"type": "object", "description": "What changes; null takes away"}))
    .if_match(AS_READ)
    .change()
    .answer(StatusCode::OK, "It is so", json_of(&applied))
    .with_fields(&["ETag"]);
    let delete = Operation::new(
        (Method::DELETE, one),
        ("spec", delete_id),
        format!("Remove a {noun}"),
        move |State(running): State<Running>,
              name: Place<String>,
              query: Params<ChangeQuery>,
              caller: Extension<Caller>,
              headers: HeaderMap| {
            entities::delete(kind, (running, name, query), (caller, headers))
        },
    )
    .query::<ChangeQuery>()
    .if_match(AS_READ)
    .change()
    .answer(StatusCode::OK, "It is gone", json_of(&applied));
    let placed = |operation: Operation| match kind {
        Kind::Routes => operation.query::<PlaceQuery>(),
        _ => operation.query::<ChangeQuery>(),
    };
    vec![list, get, placed(put), placed(patch), delete]
}

/// What may be put: the name is in the path already.
fn nameless(g: &SchemaGenerator, schema: &Value) -> Value {
    let reference = schema["$ref"].as_str().unwrap_or_default();
    let name = reference.rsplit('/').next().unwrap_or_default();
    let mut schema = g.definitions().get(name).cloned().unwrap_or_else(|| schema.clone());
    if let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut) {
        required.retain(|name| name != "name");
    }
    schema
}

fn ids(kind: Kind) -> [&'static str; 5] {
    match kind {
        Kind::Authenticators => [
            "listAuthenticators",
            "getAuthenticator",
            "putAuthenticator",
            "patchAuthenticator",
            "deleteAuthenticator",
        ],
        Kind::Groups => ["listGroups", "getGroup", "putGroup", "patchGroup", "deleteGroup"],
        Kind::Consumers => {
            ["listConsumers", "getConsumer", "putConsumer", "patchConsumer", "deleteConsumer"]
        }
        Kind::Limits => ["listLimits", "getLimit", "putLimit", "patchLimit", "deleteLimit"],
        Kind::Protos => ["listProtos", "getProto", "putProto", "patchProto", "deleteProto"],
        Kind::Apis => ["listApis", "getApi", "putApi", "patchApi", "deleteApi"],
        Kind::Listeners => {
            ["listListeners", "getListener", "putListener", "patchListener", "deleteListener"]
        }
        Kind::Upstreams => {
            ["listUpstreams", "getUpstream", "putUpstream", "patchUpstream", "deleteUpstream"]
        }
        Kind::Routes => ["listRoutes", "getRoute", "putRoute", "patchRoute", "deleteRoute"],
    }
}

fn keys(g: &mut SchemaGenerator) -> Vec<Operation> {
    const ALL: &str = "/v1/spec/consumers/{name}/keys";
    let wish = g.subschema_for::<consumer_keys::NewKey>().to_value();
    let made = g.subschema_for::<KeyMade>().to_value();
    let list = Operation::new(
        (Method::GET, ALL),
        ("spec", "listConsumerKeys"),
        "The API keys of a consumer",
        consumer_keys::list,
    )
    .query::<PageQuery>()
    .answers::<Vec<ApiKey>>(g, "A page of them")
    .with_fields(&["Link"])
    .problems(&[(404, "There is no such consumer")]);
    let create = Operation::new(
        (Method::POST, ALL),
        ("spec", "createConsumerKey"),
        "Make an API key for a consumer; it is told this once",
        consumer_keys::create,
    )
    .query::<ChangeQuery>()
    .may_take(JSON, wish)
    .if_match(AS_READ)
    .change()
    .answer(StatusCode::OK, "So it would be", Some(("application/json", made.clone())))
    .answer(StatusCode::CREATED, "It is made", Some(("application/json", made)))
    .with_fields(&["Location"]);
    let delete = Operation::new(
        (Method::DELETE, "/v1/spec/consumers/{name}/keys/{sha256}"),
        ("spec", "deleteConsumerKey"),
        "Remove an API key of a consumer",
        consumer_keys::delete,
    )
    .query::<ChangeQuery>()
    .if_match(AS_READ)
    .change()
    .answers::<Applied>(g, "It is gone");
    vec![list, create, delete]
}

fn questions(g: &mut SchemaGenerator) -> Vec<Operation> {
    let problems: &[(u16, &str)] = &[(422, "The spec has problems")];
    let order = g.subschema_for::<trial::TryOrder>().to_value();
    let question = g.subschema_for::<Question>().to_value();
    vec![
        Operation::new(
            (Method::POST, "/v1/validate"),
            ("questions", "validate"),
            "Every problem of a spec",
            trial::validate,
        )
        .takes(SPEC, json!({"description": "What may be a spec, or anything else"}))
        .answers::<Validated>(g, "Whether it could run"),
        Operation::new(
            (Method::POST, "/v1/diff"),
            ("questions", "diff"),
            "How a spec differs from the running one",
            config::diff,
        )
        .takes(SPEC, spec_text())
        .answers::<Diff>(g, "The difference")
        .problems(problems),
        Operation::new(
            (Method::POST, "/v1/try"),
            ("questions", "try"),
            "Which requests a spec would route or refuse, differently than now",
            trial::try_out,
        )
        .takes(JSON, order)
        .answers::<TryAnswer>(g, "What would become of them")
        .problems(problems),
        Operation::new(
            (Method::POST, "/v1/explain"),
            ("questions", "explain"),
            "Which route a request takes, and why not the others",
            config::explain,
        )
        .role(Role::Viewer)
        .takes(SPEC_OR_JSON, question)
        .answers::<Explanation>(g, "The explanation"),
    ]
}

fn rollouts(g: &mut SchemaGenerator) -> Vec<Operation> {
    let none: &[(u16, &str)] = &[(409, "No revision is on trial")];
    vec![
        Operation::new(
            (Method::GET, "/v1/rollout"),
            ("revisions", "getRollout"),
            "How the trial of a revision on some nodes goes, or how the last one went",
            rollout::standing,
        )
        .answers::<Standing>(g, "So"),
        Operation::new(
            (Method::POST, "/v1/rollout/promote"),
            ("revisions", "promoteRollout"),
            "Let all nodes take the revision on trial",
            rollout::promote,
        )
        .query::<rollout::EndQuery>()
        .change()
        .answers::<Rollout>(g, "They do")
        .problems(none),
        Operation::new(
            (Method::POST, "/v1/rollout/abort"),
            ("revisions", "abortRollout"),
            "Let all nodes go on as before the trial",
            rollout::abort,
        )
        .query::<rollout::EndQuery>()
        .change()
        .answers::<Rollout>(g, "They do")
        .problems(none),
    ]
}

fn caches(g: &mut SchemaGenerator) -> Vec<Operation> {
    vec![
        Operation::new(
            (Method::GET, "/v1/cache"),
            ("state", "cacheNow"),
            "What the response cache of this node keeps",
            cache::standing,
        )
        .answers::<CacheState>(g, "So"),
        Operation::new(
            (Method::POST, "/v1/cache/purge"),
            ("state", "purgeCache"),
            "Have stored answers of this node go",
            cache::purge,
        )
        .query::<cache::What>()
        .change()
        .answers::<CacheState>(g, "They are gone"),
    ]
}

/// Questions came as plain text from the beginning.
const SPEC_OR_JSON: &[&str] = &["application/json", "text/json"];

fn standing(g: &mut SchemaGenerator) -> Vec<Operation> {
    let at = |path: &str| (Method::GET, format!("/v1/{path}"));
    vec![
        Operation::new(
            at("status"),
            ("state", "getStatus"),
            "Epoch, adoption by the shards and health",
            state::status,
        )
        .answers::<Status>(g, "How it stands"),
        Operation::new(
            at("cluster"),
            ("state", "getCluster"),
            "The nodes that share the store, and which revision each serves",
            state::cluster,
        )
        .answers::<Cluster>(g, "They"),
        Operation::new(
            at("routes"),
            ("state", "routesInForce"),
            "The routes in force",
            state::routes,
        )
        .answers::<Vec<Route>>(g, "They"),
        Operation::new(
            at("upstreams"),
            ("state", "upstreamHealth"),
            "How upstreams and their targets stand",
            state::upstreams,
        )
        .answers::<Vec<Upstream>>(g, "They"),
        Operation::new(
            at("listeners"),
            ("state", "listenersInForce"),
            "The listeners in force",
            state::listeners,
        )
        .answers::<Vec<Listener>>(g, "They"),
        Operation::new(
            at("certificates"),
            ("state", "certificatesInUse"),
            "The certificates in use",
            state::certificates,
        )
        .answers::<Vec<Certificate>>(g, "They"),
        Operation::new(
            at("authenticators"),
            ("state", "authenticatorsInForce"),
            "The authenticators in force, and whether they are ready",
            callers::authenticators,
        )
        .answers::<Vec<Authenticator>>(g, "They"),
        Operation::new(
            at("consumers"),
            ("state", "consumersInForce"),
            "Who may call, and when their keys were used last",
            callers::consumers,
        )
        .answers::<Vec<Consumer>>(g, "They"),
        Operation::new(
            at("keys"),
            ("state", "keysInForce"),
            "The API keys of the spec, and when each was used last",
            callers::keys,
        )
        .answers::<Vec<ApiKey>>(g, "They"),
        Operation::new(
            at("limits"),
            ("state", "limitsNow"),
            "The buckets of limits, the fullest first",
            limits::limits,
        )
        .query::<limits::Which>()
        .answers::<Vec<LimitBucket>>(g, "They"),
        Operation::new(
            at("audit"),
            ("revisions", "listAudit"),
            "Who did what, and who was refused, newest first",
            audit::list,
        )
        .role(Role::Admin)
        .query::<PageQuery>()
        .answers::<Vec<AuditEntry>>(g, "A page of the chain")
        .with_fields(&["Link"]),
        Operation::new(
            at("audit/verdict"),
            ("revisions", "verifyAudit"),
            "Whether the audit chain is whole",
            audit::verdict,
        )
        .role(Role::Admin)
        .answers::<AuditVerdict>(g, "What was found"),
        Operation::new(
            at("openapi.json"),
            ("state", "getOpenapi"),
            "This document",
            probes::openapi,
        )
        .answer(
            StatusCode::OK,
            "OpenAPI 3.1",
            Some(("application/json", json!({"type": "object"}))),
        ),
    ]
}

fn probes() -> Vec<Operation> {
    let text = || Some(("text/plain", json!({"type": "string"})));
    vec![
        Operation::new(
            (Method::GET, "/healthz"),
            ("node", "healthz"),
            "Whether control lives",
            probes::healthy,
        )
        .open()
        .answer(StatusCode::OK, "It does", text()),
        Operation::new(
            (Method::GET, "/readyz"),
            ("node", "readyz"),
            "Whether the gateway is ready for traffic",
            probes::ready,
        )
        .open()
        .answer(StatusCode::OK, "It is", text())
        .answer(StatusCode::SERVICE_UNAVAILABLE, "Not yet; the text says why", text()),
        Operation::new(
            (Method::GET, "/metrics"),
            ("node", "metrics"),
            "Metrics for Prometheus",
            probes::metrics,
        )
        .open()
        .answer(StatusCode::OK, "The text format of Prometheus", text()),
    ]
}
