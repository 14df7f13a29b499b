//! What happens to the requests of one route once the router has found it.

use std::sync::Arc;

use contract::snapshot::{self, Hedge, LimitIndex, Mirror, Priority, Retry, Timeouts};

use super::{PlanError, Upstream};
use crate::aggregate::Aggregate;
use crate::auth::{Networks, Policy, policy};
use crate::cors::Cors;
use crate::extension::Extension;
use crate::graphql;
use crate::limit;
use crate::payload::Payload;
use crate::route::Rewrite;
use crate::shape::{Captures, Shape, scope};
use crate::transcode::{Proto, Transcode};
use crate::validate::{Api, Rules};

/// A route without its conditions: those are in the router.
#[derive(Clone, Debug, PartialEq)]
pub struct Route {
    pub name: Box<str>,
    /// Applied to the normalised path by [`crate::route::rewrite_path`].
    pub rewrite: Rewrite,
    /// What else it changes, or answers itself.
    pub shape: Option<Box<Shape>>,
    /// The parts of its path that templates may ask for.
    pub captures: Captures,
    /// At least one, unless it answers itself; picked by weight.
    pub backends: Box<[Backend]>,
    /// Calls that make the answer; then there are no backends.
    pub aggregate: Option<Box<Aggregate>>,
    /// 0 in a field: the upstream's value.
    timeouts: Timeouts,
    /// Largest request body in bytes; past it 413.
    pub max_body_bytes: u64,
    /// What is changed of bodies.
    pub payload: Option<Arc<Payload>>,
    /// `Upgrade` tokens that may be tunnelled, lower case.
    pub upgrades: Box<[Box<str>]>,
    /// Takes requests with a safe method from early data.
    pub early_data: bool,
    /// Translates gRPC-Web.
    pub grpc_web: bool,
    /// Translates between JSON and gRPC.
    pub transcode: Option<Arc<Transcode>>,
    /// `None`: the upstream's.
    retry: Option<Retry>,
    /// What is kept of its answers; `None`: nothing.
    pub cache: Option<Box<snapshot::RouteCache>>,
    /// `None`: the upstream's.
    hedge: Option<Hedge>,
    pub priority: Priority,
    /// Names an upstream of the Plan.
    pub mirror: Option<Mirror>,
    /// A field with the client's patience in milliseconds, lower case.
    pub deadline_header: Option<Box<str>>,
    /// Who may call; `None`: anyone.
    pub auth: Option<Box<snapshot::RouteAuth>>,
    /// What must be true of a request.
    pub policy: Option<Arc<Policy>>,
    /// From where; `None`: from anywhere.
    pub networks: Option<Box<Networks>>,
    /// Policies that requests must pass, those that hold everywhere included.
    pub limits: Box<[LimitIndex]>,
    /// What scripts of other origins may do; `None`: the upstream says.
    pub cors: Option<Box<Cors>>,
    /// Who sees its requests and answers on their way.
    pub extension: Option<Box<Extension>>,
    /// What requests must look like; `None`: anything.
    pub rules: Option<Box<Rules>>,
    /// Its requests are GraphQL's, and have to be within these bounds.
    pub graphql: Option<Box<graphql::Rules>>,
}

/// A share of a route's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Backend {
    /// Index into [`super::Plan::upstreams`]; always valid in the Plan it came from.
    pub upstream: u32,
    /// 0: gets nothing.
    pub weight: u32,
}

impl Route {
    pub(super) fn build(
        from: snapshot::Route,
        upstreams: usize,
        policies: &policy::Memory,
        limits: &limit::Policies,
        apis: &[Arc<Api>],
        protos: &[Arc<Proto>],
    ) -> Result<Route, PlanError> {
        let error = |field: String, problem: String| PlanError {
            entity: "route",
            name: from.name.clone(),
            field,
            problem,
        };
        let answers = from.shape.as_ref().is_some_and(|shape| shape.answer.is_some());
        if from.backends.is_empty() && !answers && from.aggregate.is_none() {
            return Err(error("backends".into(), "is empty; name at least one upstream".into()));
        }
        for (i, backend) in from.backends.iter().enumerate() {
            if backend.upstream as usize >= upstreams {
                return Err(error(
                    format!("backends[{i}].upstream"),
                    format!("upstream {} of {upstreams} does not exist", backend.upstream),
                ));
            }
        }
        if let Some(mirror) = from.mirror
            && mirror.upstream as usize >= upstreams
        {
            return Err(error(
                "mirror.upstream".into(),
                format!("upstream {} of {upstreams} does not exist", mirror.upstream),
            ));
        }
        if let Some(processor) = &from.processor
            && processor.upstream as usize >= upstreams
        {
            return Err(error(
                "external_processor.upstream".into(),
                format!("upstream {} of {upstreams} does not exist", processor.upstream),
            ));
        }
        let extension = from.processor.as_ref();
        let extension = extension.map(|one| Box::new(Extension::build(one, &from.name)));
        let rewrite = Rewrite::build(&from.path, &from.rewrite)
            .map_err(|problem| error("rewrite".into(), problem))?;
        let captures =
            Captures::build(&from.path).map_err(|problem| error("path".into(), problem))?;
        let payload =
            from.payload.as_ref().map(|payload| Payload::build(payload, &scope(&from, &captures)));
        let payload = payload.transpose().map_err(|(field, problem)| error(field, problem))?;
        let shape = from.shape.as_ref().map(|shape| Shape::build(&from, shape, &captures));
        let shape = shape.transpose().map_err(|(field, problem)| error(field, problem))?;
        let aggregate = from.aggregate.as_ref().map(|aggregate| {
            let scope = scope(&from, &captures);
            let built = Aggregate::build(aggregate, &scope, upstreams, protos);
            built
                .map(Box::new)
                .map_err(|(field, problem)| error(format!("aggregate.{field}"), problem))
        });
        let aggregate = aggregate.transpose()?;
        let policy = from.auth.as_ref().and_then(|auth| auth.policy.as_deref());
        let policy = policy.map(|text| policies.policy(text)).transpose();
        let policy = policy.map_err(|problem| error("auth.policy".into(), problem))?;
        let cors = from.cors.as_ref().map(|cors| Cors::build(cors, &from.methods, from.grpc_web));
        let cors = cors.transpose().map_err(|(field, problem)| error(field, problem))?;
        let limits = limits.on_route(&from.limits);
        let limits = limits.map_err(|problem| error("limits".into(), problem))?;
        let rules = from.validation.as_ref().map(|rules| {
            let api = apis.get(rules.api as usize).cloned();
            let api = api.ok_or_else(|| error("validate".into(), "its API does not exist".into()));
            api.map(|api| Box::new(Rules::new(rules, api)))
        });
        let rules = rules.transpose()?;
        let transcode = from.transcode.as_ref().map(|transcode| {
            let proto = protos.get(transcode.proto as usize).cloned();
            let gone = || error("transcode.proto".into(), "its descriptors do not exist".into());
            let built = Transcode::build(transcode, proto.ok_or_else(gone)?);
            let built =
                built.map_err(|(field, problem)| error(format!("transcode.{field}"), problem));
            built.map(Arc::new)
        });
        let transcode = transcode.transpose()?;
        Ok(Route {
            name: from.name.into(),
            rewrite,
            shape: shape.map(Box::new),
            captures,
            backends: from
                .backends
                .into_iter()
                .map(|b| Backend { upstream: b.upstream, weight: b.weight })
                .collect(),
            aggregate,
            timeouts: from.timeouts,
            max_body_bytes: from.max_body_bytes,
            payload: payload.map(Arc::new),
            upgrades: from
                .upgrades
                .into_iter()
                .map(|token| token.to_ascii_lowercase().into())
                .collect(),
            early_data: from.early_data,
            grpc_web: from.grpc_web,
            transcode,
            retry: from.retry,
            cache: from.cache.map(Box::new),
            hedge: from.hedge,
            priority: from.priority,
            mirror: from.mirror,
            deadline_header: from.deadline_header.map(Into::into),
            auth: from.auth.map(Box::new),
            policy,
            networks: from.networks.map(|networks| Box::new(Networks::build(&networks))),
            limits,
            cors: cors.map(Box::new),
            extension,
            rules,
            graphql: from.graphql.map(|one| Box::new(graphql::Rules::new(&one))),
        })
    }

    /// What holds for calls of the gateway's own: 0 and `None` are the upstream's.
    pub fn of_call(name: &str, timeouts: Timeouts, retry: Option<Retry>) -> Route {
        Route {
            name: name.into(),
            rewrite: Rewrite::Keep,
            shape: None,
            captures: Captures::default(),
            backends: Box::default(),
            aggregate: None,
            timeouts,
            max_body_bytes: u64::MAX,
            payload: None,
            upgrades: Box::default(),
            early_data: false,
            grpc_web: false,
            transcode: None,
            retry,
            cache: None,
            hedge: None,
            priority: Priority::Normal,
            mirror: None,
            deadline_header: None,
            auth: None,
            policy: None,
            networks: None,
            limits: Box::default(),
            cors: None,
            extension: None,
            rules: None,
            graphql: None,
        }
    }

    /// Whether there is something to choose between its upstreams.
    #[inline]
    pub fn is_canary(&self) -> bool {
        !matches!(&*self.backends, [] | [Backend { weight: 1.., .. }])
    }

    /// The deadlines of an exchange of this route with `upstream`, in milliseconds: the route's
    /// where it sets one, else the upstream's.
    pub fn timeouts(&self, upstream: &Upstream) -> Timeouts {
        let or = |own: u32, theirs: u32| if own == 0 { theirs } else { own };
        let (own, theirs) = (self.timeouts, upstream.timeouts);
        Timeouts {
            connect_ms: or(own.connect_ms, theirs.connect_ms),
            first_byte_ms: or(own.first_byte_ms, theirs.first_byte_ms),
            idle_ms: or(own.idle_ms, theirs.idle_ms),
            try_ms: or(own.try_ms, theirs.try_ms),
            total_ms: or(own.total_ms, theirs.total_ms),
        }
    }

    /// How failed tries at `upstream` are made again.
    pub fn retry<'a>(&'a self, upstream: &'a Upstream) -> &'a Retry {
        self.retry.as_ref().unwrap_or(&upstream.retry)
    }

    /// When a slow try at `upstream` gets another beside it.
    pub fn hedge(&self, upstream: &Upstream) -> Option<Hedge> {
        self.hedge.or(upstream.hedge)
    }

    /// Whether `token` of an `Upgrade` field may be tunnelled (RFC 9110 §7.8: compared without case).
    pub fn allows_upgrade(&self, token: &[u8]) -> bool {
        self.upgrades.iter().any(|allowed| allowed.as_bytes().eq_ignore_ascii_case(token))
    }
}

#[cfg(test)]
mod tests {
    use contract::snapshot::{PathMatch, PathRewrite};

    use super::*;

    #[test]
    fn own_deadlines_go_first() {
        let from = snapshot::Route {
            name: "r".into(),
            hosts: vec![],
            path: PathMatch::Prefix("/".into()),
            methods: vec![],
            headers: vec![],
            query: vec![],
            rewrite: PathRewrite::Keep,
            backends: vec![snapshot::Backend { upstream: 0, weight: 3 }],
            timeouts: Timeouts {
                connect_ms: 7,
                first_byte_ms: 0,
                idle_ms: 0,
                try_ms: 0,
                total_ms: u32::MAX,
            },
            max_body_bytes: 9,
            upgrades: vec!["WebSocket".into()],
            ..Default::default()
        };
        let route =
            Route::build(from, 1, &Default::default(), &Default::default(), &[], &[]).unwrap();
        let upstream = Upstream {
            name: "u".into(),
            balance: Default::default(),
            targets: Box::default(),
            pool: Default::default(),
            timeouts: Timeouts {
                connect_ms: 1,
                first_byte_ms: 2,
                idle_ms: 3,
                try_ms: 5,
                total_ms: 4,
            },
            host_header: Default::default(),
            protocol: Default::default(),
            tls: None,
            health: None,
            ..Default::default()
        };
        let want =
            Timeouts { connect_ms: 7, first_byte_ms: 2, idle_ms: 3, try_ms: 5, total_ms: u32::MAX };
        assert_eq!(route.timeouts(&upstream), want);
        assert!(route.allows_upgrade(b"websocket") && route.allows_upgrade(b"WEBSOCKET"));
        assert!(!route.allows_upgrade(b"h2c"));
    }
}
