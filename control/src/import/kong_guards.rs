//! Kong's plugins: who may call, how much, from where. Of one kind the nearest counts: the route's before
//! the service's before the one for all.

use std::collections::BTreeMap;

use super::kong::reference;
use super::source::View;
use super::{Draft, Kind, close, network, slug};
use crate::yaml::{Map, Yaml};

/// Plugins that keep nobody out: without them a route is not more open.
const HARMLESS: [&str; 21] = [
    "acme",
    "correlation-id",
    "datadog",
    "file-log",
    "grpc-gateway",
    "grpc-web",
    "http-log",
    "kafka-log",
    "loggly",
    "opentelemetry",
    "post-function",
    "prometheus",
    "proxy-cache",
    "request-transformer",
    "response-transformer",
    "statsd",
    "syslog",
    "tcp-log",
    "udp-log",
    "response-ratelimiting",
    "zipkin",
];

/// How tokens are signed: one authenticator for each credential, by its issuer.
#[derive(Default)]
pub struct JwtKeys {
    names: Vec<String>,
}

impl JwtKeys {
    /// Takes a credential; the authenticator's name and the issuer.
    pub fn take(
        &mut self,
        one: View<'_>,
        consumer: &str,
        draft: &mut Draft,
    ) -> Option<(String, String)> {
        let place = one.place();
        let algorithm = one.get("algorithm").text().unwrap_or_else(|| "HS256".into());
        let Some(issuer) = one.get("key").text() else {
            let message = format!(
                "a JWT credential of `{consumer}` has no key, which is its issuer; not taken"
            );
            draft.warn(&place, message);
            return None;
        };
        let least = match &*algorithm {
            "HS256" => 32,
            "HS384" => 48,
            "HS512" => 64,
            other => {
                let message = format!(
                    "the {other} key of `{issuer}` has to be in a file here; write it there, and an \
                     authenticator {{jwt: {{issuer: {issuer}, audiences: any, keys: [{{algorithm: {other}, \
                     public_key: FILE}}], consumer_claim: iss}}}} with a subject of `{consumer}`"
                );
                draft.warn(&place, message);
                return None;
            }
        };
        let secret = one.get("secret").text().unwrap_or_default();
        if secret.len() < least {
            let message = format!(
                "the secret of `{issuer}` has {} bytes, and {algorithm} needs {least} (RFC 7518 §3.2); not taken",
                secret.len()
            );
            draft.warn(&place, message);
            return None;
        }
        let name = draft.name(Kind::Authenticators, &format!("jwt-{issuer}"));
        let key = Map::new()
            .with("algorithm", algorithm)
            .with("secret", Map::new().with("inline", secret));
        let jwt = Map::new()
            .with("issuer", issuer.as_str())
            .with("audiences", "any")
            .with("keys", vec![key])
            .with("consumer_claim", "iss")
            .with("consumer_required", true);
        let fields = Map::new().with("name", name.as_str()).with("jwt", jwt);
        draft.add(Kind::Authenticators, &place, fields);
        let message =
            format!("the secret of `{issuer}` stands in the spec; better put it into a file");
        draft.warn(&place, message);
        self.names.push(name.clone());
        Some((name, issuer))
    }
}

/// All plugins, and what has become of them so far.
#[derive(Default)]
pub struct Guards<'d> {
    everywhere: Vec<View<'d>>,
    of_service: Vec<(String, View<'d>)>,
    of_route: Vec<(String, View<'d>)>,
    jwt: Vec<String>,
    /// Authenticators by what they are made of.
    authenticators: BTreeMap<String, String>,
    /// Limits by the line of their plugin.
    limits: BTreeMap<usize, Option<String>>,
}

impl<'d> Guards<'d> {
    pub fn of(root: View<'d>, keys: JwtKeys, draft: &mut Draft) -> Guards<'d> {
        let mut guards = Guards { jwt: keys.names, ..Guards::default() };
        for plugin in root.get("plugins").items() {
            if plugin.get("consumer").is_some() || plugin.get("consumer_group").is_some() {
                let name = plugin.get("name").text().unwrap_or_default();
                let message =
                    format!("the plugin {name} of a consumer or a group alone is not taken");
                draft.warn(&plugin.place(), message);
                continue;
            }
            match (reference(plugin.get("route")), reference(plugin.get("service"))) {
                (Some(route), _) => guards.of_route.push((route, plugin)),
                (None, Some(service)) => guards.of_service.push((service, plugin)),
                (None, None) => guards.everywhere.push(plugin),
            }
        }
        for group in root.get("consumer_groups").items() {
            if group.get("plugins").is_some() {
                let message = "plugins of consumer groups are not taken; see `tiers` of limits";
                draft.warn(&group.get("plugins").place(), message);
            }
        }
        guards
    }

    /// Gives `fields`, a route, what its plugins say.
    pub fn apply(
        &mut self,
        service: View<'d>,
        route: View<'d>,
        fields: &mut Map,
        draft: &mut Draft,
    ) {
        let is = |view: View<'_>, name: &str| {
            let own = [view.get("name").text(), view.get("id").text()];
            own.into_iter().flatten().any(|own| own == name)
        };
        let named = |list: &[(String, View<'d>)], view| -> Vec<View<'d>> {
            list.iter().filter(|(name, _)| is(view, name)).map(|(_, plugin)| *plugin).collect()
        };
        let levels = [
            [route.get("plugins").items().collect(), named(&self.of_route, route)].concat(),
            [service.get("plugins").items().collect(), named(&self.of_service, service)].concat(),
            self.everywhere.clone(),
        ];
        let mut plugins: BTreeMap<String, View<'d>> = BTreeMap::new();
        for plugin in levels.concat() {
            let name = plugin.get("name").text().unwrap_or_default();
            plugins.entry(name).or_insert(plugin);
        }
        plugins.retain(|_, plugin| plugin.get("enabled").flag() != Some(false));
        let mut why = Vec::new();
        let mut auth = Auth::default();
        for (name, plugin) in &plugins {
            let config = plugin.get("config");
            match &**name {
                "key-auth" | "basic-auth" | "jwt" => {
                    if let Err(message) = self.authenticator(name, config, &mut auth, draft) {
                        why.push(message);
                    }
                }
                "acl" => {
                    auth.acl = Some(config);
                    // Kong knows groups by their members alone, and this one may have none.
                    for group in
                        [config.get("allow").texts(), config.get("whitelist").texts()].concat()
                    {
                        let name = slug(&group, "group");
                        if draft.names.insert((Kind::Groups.word(), name.clone())) {
                            draft.add(Kind::Groups, &config.place(), Map::new().with("name", name));
                        }
                    }
                }
                "rate-limiting" => {
                    if let Some(limit) = self.limit(*plugin, draft) {
                        fields.set("limits", vec![limit]);
                    }
                }
                "cors" => cors(config, fields, draft),
                "ip-restriction" => {
                    if let Err(message) = addresses(config, fields, draft) {
                        why.push(message);
                    }
                }
                "request-size-limiting" => size(config, fields),
                harmless if HARMLESS.contains(&harmless) => {
                    draft.warn(&plugin.place(), format!("the plugin {harmless} is not taken"));
                }
                other => {
                    let message = format!("the plugin {other} cannot be taken");
                    draft.warn(
                        &plugin.place(),
                        format!("{message}; routes that have it are closed"),
                    );
                    why.push(message);
                }
            }
        }
        match auth.written() {
            Ok(Some(written)) => {
                fields.set("auth", written);
            }
            Ok(None) => {}
            Err(message) => why.push(message),
        }
        if !why.is_empty() {
            fields.remove("networks");
            let name = route.get("name").text().unwrap_or_default();
            draft.warn(&route.place(), format!("the route `{name}` is closed: {}", why.join("; ")));
            close(fields, &why.join("; "));
        }
    }

    fn authenticator(
        &mut self,
        name: &str,
        config: View<'_>,
        auth: &mut Auth<'_>,
        draft: &mut Draft,
    ) -> Result<(), String> {
        auth.hide |= config.get("hide_credentials").flag() == Some(true);
        auth.anonymous.push(config.get("anonymous").text());
        let (kind, fields) = match name {
            "jwt" => {
                if self.jwt.is_empty() {
                    return Err("no consumer has a JWT credential that could be taken".into());
                }
                for word in ["cookie_names", "claims_to_verify"] {
                    if config.get(word).items().next().is_some() {
                        let message = format!(
                            "{word} of the plugin jwt is not taken: tokens are in Authorization, and exp \
                             and nbf are always verified"
                        );
                        draft.warn(&config.get(word).place(), message);
                    }
                }
                auth.ways.push(self.jwt.clone());
                return Ok(());
            }
            "basic-auth" => {
                let realm = config.get("realm").text();
                let fields = realm.map(|realm| Map::new().with("realm", realm)).unwrap_or_default();
                ("basic", fields)
            }
            _ => {
                let mut names = config.get("key_names").texts();
                if names.is_empty() {
                    names.push("apikey".into());
                }
                let mut from = Vec::new();
                let on = |word: &str| config.get(word).flag() != Some(false);
                if on("key_in_header") {
                    from.extend(
                        names
                            .iter()
                            .map(|name| Map::new().with("header", name.to_ascii_lowercase())),
                    );
                }
                if on("key_in_query") {
                    from.extend(names.iter().map(|name| Map::new().with("query", name.as_str())));
                }
                if config.get("key_in_body").flag() == Some(true) {
                    let message = "keys in bodies are not looked for";
                    draft.warn(&config.get("key_in_body").place(), message);
                }
                ("api_key", Map::new().with("from", from))
            }
        };
        let fields = Map::new().with(kind, fields);
        let made_of = Yaml::from(fields.clone()).document();
        let known = self.authenticators.get(&made_of).cloned();
        let name = known.unwrap_or_else(|| {
            let name = draft.name(Kind::Authenticators, name);
            let mut whole = Map::new().with("name", name.as_str());
            if let Some(below) = fields.get(kind) {
                whole.set(kind, below.clone());
            }
            draft.add(Kind::Authenticators, &config.place(), whole);
            self.authenticators.insert(made_of, name.clone());
            name
        });
        auth.ways.push(vec![name]);
        Ok(())
    }

    fn limit(&mut self, plugin: View<'_>, draft: &mut Draft) -> Option<String> {
        let line = plugin.place().line;
        if let Some(known) = self.limits.get(&line) {
            return known.clone();
        }
        let name = limit(plugin, "rate-limiting", draft);
        self.limits.insert(line, name.clone());
        name
    }
}

/// Who may call a route.
#[derive(Default)]
struct Auth<'d> {
    /// Of each plugin the authenticators, one of which has to do.
    ways: Vec<Vec<String>>,
    anonymous: Vec<Option<String>>,
    hide: bool,
    acl: Option<View<'d>>,
}

impl Auth<'_> {
    fn written(&self) -> Result<Option<Map>, String> {
        let mut auth = Map::new();
        let all_pass = !self.anonymous.is_empty() && self.anonymous.iter().all(Option::is_some);
        match self.ways.as_slice() {
            [] if self.acl.is_some() => {
                return Err("acl without anything that says who calls".into());
            }
            [] => return Ok(None),
            [one] => {
                auth.set("any", one.clone());
            }
            // Kong asks for all of them, unless who fails one may go on as somebody else.
            several if all_pass => {
                auth.set("any", several.concat());
            }
            several if several.iter().all(|one| one.len() == 1) => {
                auth.set("all", several.concat());
            }
            _ => {
                return Err(
                    "several JWT credentials beside another plugin, all of which must hold".into(),
                );
            }
        }
        if let (true, Some(Some(name))) = (all_pass, self.anonymous.first()) {
            auth.set("anonymous", name.as_str());
        }
        if let Some(acl) = self.acl {
            let groups = |word: &str, old: &str| -> Vec<String> {
                let found = [acl.get(word).texts(), acl.get(old).texts()].concat();
                found.iter().map(|group| slug(group, "group")).collect()
            };
            let (allow, deny) = (groups("allow", "whitelist"), groups("deny", "blacklist"));
            if !allow.is_empty() {
                auth.set("groups", allow);
            }
            if !deny.is_empty() {
                let none: Vec<String> =
                    deny.iter().map(|group| format!("!('{group}' in consumer.groups)")).collect();
                auth.set("policy", none.join(" && "));
            }
        }
        if self.hide {
            auth.set("hide_credentials", true);
        }
        Ok(Some(auth))
    }
}

/// The limit of a consumer alone.
pub fn of_consumer(consumer: View<'_>, called: &str, draft: &mut Draft) -> Option<String> {
    let mut found = None;
    for plugin in consumer.get("plugins").items() {
        match plugin.get("name").text().as_deref() {
            Some("rate-limiting") => found = limit(plugin, called, draft),
            name => {
                let message =
                    format!("the plugin {} of `{called}` is not taken", name.unwrap_or_default());
                draft.warn(&plugin.place(), message);
            }
        }
    }
    found
}

fn limit(plugin: View<'_>, called: &str, draft: &mut Draft) -> Option<String> {
    let (place, config) = (plugin.place(), plugin.get("config"));
    let mut windows = Vec::new();
    for unit in ["second", "minute", "hour", "day", "month", "year"] {
        if let Some(requests) = config.get(unit).number() {
            let per = if unit == "second" { "1s" } else { unit };
            windows.push(Map::new().with("requests", requests).with("per", per));
        }
    }
    if windows.is_empty() {
        draft.warn(&place, "a rate-limiting without a window; not taken");
        return None;
    }
    let by: Vec<Yaml> = match config.get("limit_by").text().as_deref() {
        None | Some("consumer") => vec!["consumer".into()],
        Some("credential") => vec!["credential".into()],
        Some("ip") => vec!["address".into()],
        Some("service") => Vec::new(),
        Some("header") => {
            let header = config.get("header_name").text().unwrap_or_default();
            vec![Map::new().with("header", header.to_ascii_lowercase()).into()]
        }
        Some(other) => {
            draft.warn(&place, format!("limit_by {other} is not taken: callers are told apart"));
            vec!["consumer".into()]
        }
    };
    let name = draft.name(Kind::Limits, called);
    let mut fields = Map::new().with("name", name.as_str());
    if !by.is_empty() {
        fields.set("by", Yaml::List(by));
    }
    fields.set("windows", windows);
    match config.get("policy").text().as_deref() {
        None | Some("local") => {
            fields.set("mode", "local");
        }
        Some(policy) => {
            let message =
                format!("policy {policy}: add `redis` to the spec, or each node counts alone");
            draft.warn(&config.get("policy").place(), message);
        }
    }
    if config.get("fault_tolerant").flag() == Some(true) && fields.get("mode").is_none() {
        fields.set("on_store_failure", "open");
    }
    draft.add(Kind::Limits, &place, fields);
    Some(name)
}

fn cors(config: View<'_>, fields: &mut Map, draft: &mut Draft) {
    let mut cors = Map::new();
    let origins = config.get("origins").texts();
    let any = origins.is_empty() || origins.iter().any(|one| one == "*");
    match any {
        true => cors.set("origins", "*"),
        false => cors.set("origins", origins),
    };
    let lists = [("methods", "methods"), ("headers", "headers"), ("exposed_headers", "expose")];
    for (kong, own) in lists {
        let list = config.get(kong).texts();
        if !list.is_empty() {
            cors.set(own, list);
        }
    }
    if config.get("credentials").flag() == Some(true) {
        if any {
            let message =
                "credentials for any origin are not taken: any page could act as its visitor";
            draft.warn(&config.get("credentials").place(), message);
        } else {
            cors.set("credentials", true);
        }
    }
    if let Some(age) = config.get("max_age").number() {
        cors.set("max_age_s", age.min(86_400));
    }
    if config.get("preflight_continue").flag() == Some(true) {
        let message = "preflights are answered here, and do not go on to the service";
        draft.warn(&config.get("preflight_continue").place(), message);
    }
    fields.set("cors", cors);
}

fn addresses(config: View<'_>, fields: &mut Map, draft: &mut Draft) -> Result<(), String> {
    let mut networks = Map::new();
    for (word, old) in [("allow", "whitelist"), ("deny", "blacklist")] {
        let texts = [config.get(word).texts(), config.get(old).texts()].concat();
        let list: Option<Vec<String>> = texts.iter().map(|one| network(one)).collect();
        let list =
            list.ok_or_else(|| format!("{word} of ip-restriction has what is no network"))?;
        if !list.is_empty() {
            networks.set(word, list);
        }
    }
    if networks.get("allow").is_some() && networks.get("deny").is_some() {
        let message = "of allowed and denied networks the narrower one counts here";
        draft.warn(&config.place(), message);
    }
    if !networks.is_empty() {
        fields.set("networks", networks);
    }
    Ok(())
}

fn size(config: View<'_>, fields: &mut Map) {
    let number = config.get("allowed_payload_size").number().unwrap_or(128);
    let unit = match config.get("size_unit").text().as_deref() {
        Some("bytes") => 1,
        Some("kilobytes") => 1 << 10,
        _ => 1 << 20,
    };
    fields.set("max_body_bytes", number.saturating_mul(unit).clamp(1, 1 << 53));
}
