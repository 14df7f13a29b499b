//! Who calls, and what routes ask of callers.
//!
//! In the order in which they point at each other: Redis, key sets, authenticators, consumers.

use super::key::MAX_KEY_SETS;
use super::{
    Counts, DecodeError, In, Known, MAX_ENTRIES, Out, authenticator, consumer, key, read_cidr,
    write_cidr,
};
use crate::snapshot::*;

/// Most authenticators of a snapshot.
pub const MAX_AUTHENTICATORS: usize = 1_000;
/// Most addresses of Redis.
pub const MAX_REDIS: usize = 1_000;
/// Most networks that a route allows or denies, each.
pub const MAX_NETWORKS: usize = 100_000;

pub(super) fn write(out: &mut Out, auth: &Auth) {
    out.u64(auth.version);
    out.option(auth.redis.as_ref(), |out, redis| {
        out.texts(&redis.urls);
        out.u8(redis.cluster.into());
        out.option(redis.sentinel.as_ref(), |out, name| out.text(name));
        out.option(redis.trust.as_ref(), |out, trust| out.u32(*trust));
        out.u32(redis.limits_timeout_ms);
    });
    out.u32(auth.throttle.failures);
    out.u32(auth.throttle.window_ms);
    out.list(&auth.key_sets, key::write_key_set);
    out.list(&auth.authenticators, authenticator::write);
    // Its length first: who has them already need not read them.
    out.blob(consumer::bytes(&auth.consumers));
}

/// Reads it; `counts` are of what stands before. Those that come back are of that and of this.
pub(super) fn read(
    input: &mut In<'_>,
    counts: Counts,
    before: Option<&Known>,
) -> Result<(Auth, Counts), DecodeError> {
    let version = input.u64("auth.version")?;
    let redis = input.option("auth.redis", |input| {
        Ok(Redis {
            urls: input
                .some("auth.redis.urls", MAX_REDIS, |input| input.text("auth.redis.urls"))?,
            cluster: input.bool("auth.redis.cluster")?,
            sentinel: input
                .option("auth.redis.sentinel", |input| input.text("auth.redis.sentinel"))?,
            trust: input.option("auth.redis.trust", |input| {
                input.index("auth.redis.trust", counts.trust)
            })?,
            limits_timeout_ms: input.u32_within("auth.redis.limits_timeout_ms", 1, 10_000)?,
        })
    })?;
    let throttle = Throttle {
        failures: input.u32("auth.throttle.failures")?,
        window_ms: input.u32_within("auth.throttle.window_ms", 1, u32::MAX)?,
    };
    let key_sets = input.list("auth.key_sets", MAX_KEY_SETS, key::read_key_set)?;
    let counts = Counts { redis: redis.is_some(), key_sets: key_sets.len(), ..counts };
    let authenticators = input.list("auth.authenticators", MAX_AUTHENTICATORS, |input| {
        authenticator::read(input, counts)
    })?;
    let counts = Counts { authenticators: authenticators.len(), ..counts };
    let consumers = consumer::read_all(input, counts, before)?;
    let counts = Counts { consumers: consumers.len(), ..counts };
    Ok((Auth { version, consumers, key_sets, authenticators, redis, throttle }, counts))
}

pub(super) fn write_route_auth(out: &mut Out, auth: &RouteAuth) {
    out.list(&auth.authenticators, |out, index| out.u32(*index));
    out.u8(auth.all.into());
    match auth.unidentified {
        Unidentified::Refuse => out.u8(0),
        Unidentified::Pass => out.u8(1),
        Unidentified::As(consumer) => {
            out.u8(2);
            out.u32(consumer);
        }
    }
    out.texts(&auth.scopes);
    out.texts(&auth.groups);
    out.option(auth.policy.as_ref(), |out, policy| out.text(policy));
    out.u8(auth.hide_credentials.into());
}

pub(super) fn read_route_auth(
    input: &mut In<'_>,
    counts: Counts,
) -> Result<RouteAuth, DecodeError> {
    Ok(RouteAuth {
        authenticators: input.some("route.auth.authenticators", MAX_AUTHENTICATORS, |input| {
            input.index("route.auth.authenticators", counts.authenticators)
        })?,
        all: input.bool("route.auth.all")?,
        unidentified: match input.u8("route.auth.unidentified")? {
            0 => Unidentified::Refuse,
            1 => Unidentified::Pass,
            2 => Unidentified::As(input.index("route.auth.unidentified", counts.consumers)?),
            other => return Err(input.tag("route.auth.unidentified", other)),
        },
        scopes: input.texts("route.auth.scopes", MAX_ENTRIES)?,
        groups: input.texts("route.auth.groups", MAX_ENTRIES)?,
        policy: input.option("route.auth.policy", |input| input.text("route.auth.policy"))?,
        hide_credentials: input.bool("route.auth.hide_credentials")?,
    })
}

pub(super) fn write_networks(out: &mut Out, networks: &Networks) {
    out.list(&networks.allow, write_cidr);
    out.list(&networks.deny, write_cidr);
}

pub(super) fn read_networks(input: &mut In<'_>) -> Result<Networks, DecodeError> {
    Ok(Networks {
        allow: input.list("route.networks.allow", MAX_NETWORKS, read_cidr)?,
        deny: input.list("route.networks.deny", MAX_NETWORKS, read_cidr)?,
    })
}

pub(super) fn write_cors(out: &mut Out, cors: &Cors) {
    match &cors.origins {
        Origins::Any => out.u8(0),
        Origins::Listed(origins) => {
            out.u8(1);
            out.texts(origins);
        }
    }
    out.texts(&cors.methods);
    out.texts(&cors.headers);
    out.texts(&cors.expose);
    out.u8(cors.credentials.into());
    out.u32(cors.max_age_s);
    out.u8(cors.private_network.into());
}

pub(super) fn read_cors(input: &mut In<'_>) -> Result<Cors, DecodeError> {
    Ok(Cors {
        origins: match input.u8("route.cors.origins")? {
            0 => Origins::Any,
            1 => Origins::Listed(input.texts("route.cors.origins", MAX_ENTRIES)?),
            other => return Err(input.tag("route.cors.origins", other)),
        },
        methods: input.texts("route.cors.methods", MAX_ENTRIES)?,
        headers: input.texts("route.cors.headers", MAX_ENTRIES)?,
        expose: input.texts("route.cors.expose", MAX_ENTRIES)?,
        credentials: input.bool("route.cors.credentials")?,
        max_age_s: input.u32("route.cors.max_age_s")?,
        private_network: input.bool("route.cors.private_network")?,
    })
}
