//! Kong's declarative configuration, as decK writes it: services, routes, upstreams, consumers.

use std::collections::BTreeMap;

use super::kong_guards::{Guards, JwtKeys};
use super::source::{self, View};
use super::{Address, Draft, Imported, Kind, Place};
use crate::yaml::{Map, Yaml};

/// What Kong keeps for itself and nothing depends on.
const BOOKKEEPING: [&str; 5] = ["id", "created_at", "updated_at", "tags", "instance_name"];

/// Makes the hash of a password.
pub type Hash<'a> = &'a dyn Fn(&str) -> Result<String, String>;

/// Reads the configuration `text` of `file`.
///
/// # Errors
/// It is no such configuration, or has no route that could be taken.
pub fn import(file: &str, text: &str, hash: Hash<'_>) -> Result<Imported, String> {
    let root = source::parse(file, text)?;
    let root = View::new(file, &root);
    match root.get("_format_version").text() {
        Some(version) if version.starts_with(['1', '2', '3']) => {}
        Some(version) => {
            return Err(format!("{file}: _format_version {version} is not known here"));
        }
        None => return Err(format!("{file}: `_format_version` is missing; is it Kong's?")),
    }
    let draft = Draft::new(format!("Made of {file} (Kong) by `sluice import kong`."));
    let mut walk = Walk {
        root,
        draft,
        upstreams: BTreeMap::new(),
        guards: Guards::default(),
        prefixes: false,
    };
    walk.rest();
    let keys = walk.consumers(hash);
    walk.guards = Guards::of(root, keys, &mut walk.draft);
    let services: Vec<View<'_>> = root.get("services").items().collect();
    for service in &services {
        for route in service.get("routes").items() {
            walk.route(Some(*service), route);
        }
    }
    for route in root.get("routes").items() {
        let named = reference(route.get("service"));
        let service = services.iter().copied().find(|one| {
            named.is_some() && (one.get("name").text() == named || one.get("id").text() == named)
        });
        walk.route(service, route);
    }
    if walk.prefixes {
        let message =
            "Kong's prefixes go by characters (/a takes /ab, too), those here by whole segments";
        walk.draft.warn(&root.place(), message);
    }
    if walk.draft.list(Kind::Routes).is_empty() {
        return Err(format!("{file}: there is no route that could be taken"));
    }
    walk.draft.finish()
}

/// A name, or a map with one.
pub(super) fn reference(view: View<'_>) -> Option<String> {
    view.text().or_else(|| view.get("name").text()).or_else(|| view.get("id").text())
}

struct Walk<'d> {
    root: View<'d>,
    draft: Draft,
    /// Names of ours by the service's line and whether the client's Host is kept.
    upstreams: BTreeMap<(usize, bool), String>,
    guards: Guards<'d>,
    /// There is a prefix.
    prefixes: bool,
}

impl<'d> Walk<'d> {
    /// Warns of fields that nothing looks at.
    fn others(&mut self, view: View<'_>, what: &str, known: &[&str]) {
        let Walk { draft, .. } = self;
        for (key, value) in view.entries() {
            if known.contains(&key) || BOOKKEEPING.contains(&key) || !value.is_some() {
                continue;
            }
            draft.warn(&value.place(), format!("{key} of {what} is not taken"));
        }
    }

    fn rest(&mut self) {
        let known = [
            "_format_version",
            "_transform",
            "_info",
            "services",
            "routes",
            "upstreams",
            "targets",
            "consumers",
            "consumer_groups",
            "plugins",
            "acls",
            "keyauth_credentials",
            "basicauth_credentials",
            "jwt_secrets",
        ];
        self.others(self.root, "the configuration", &known);
    }

    /// Writes who calls; returns how tokens are signed.
    fn consumers(&mut self, hash: Hash<'_>) -> JwtKeys {
        let mut keys = JwtKeys::default();
        let mut groups: Vec<(String, Place)> = Vec::new();
        for consumer in self.root.get("consumers").items() {
            let place = consumer.place();
            let own = consumer.get("username").text().or(consumer.get("custom_id").text());
            let called = own.unwrap_or_default();
            let name = self.draft.name(Kind::Consumers, &called);
            if name != called {
                let message = format!("the consumer `{called}` is called `{name}` here");
                self.draft.warn(&place, message);
            }
            let mut fields = Map::new().with("name", name.as_str());
            let mut of = Vec::new();
            for acl in self.owned(consumer, &called, "acls") {
                let group = acl.get("group").text().or_else(|| acl.text()).unwrap_or_default();
                groups.push((group.clone(), acl.place()));
                of.push(super::slug(&group, "group"));
            }
            of.dedup();
            if !of.is_empty() {
                fields.set("groups", of);
            }
            let mut api_keys = Vec::new();
            for one in self.owned(consumer, &called, "keyauth_credentials") {
                let Some(key) = one.get("key").text() else { continue };
                let digest = ring::digest::digest(&ring::digest::SHA256, key.as_bytes());
                let sha256 = data_encoding::HEXLOWER.encode(digest.as_ref());
                api_keys.push(Map::new().with("sha256", sha256));
            }
            if !api_keys.is_empty() {
                fields.set("api_keys", api_keys);
            }
            let mut passwords = Vec::new();
            for one in self.owned(consumer, &called, "basicauth_credentials") {
                let password = one.get("password").text().unwrap_or_default();
                let hashed =
                    password.len() == 40 && password.bytes().all(|b| b.is_ascii_hexdigit());
                let username = one.get("username").text().unwrap_or_default();
                if hashed || password.is_empty() {
                    let message = format!(
                        "the password of `{username}` is only there as Kong's hash; not taken"
                    );
                    self.draft.warn(&one.place(), message);
                    continue;
                }
                match hash(&password) {
                    Ok(hash) => {
                        passwords.push(Map::new().with("username", username).with("hash", hash))
                    }
                    Err(message) => self.draft.warn(&one.place(), message),
                }
            }
            if !passwords.is_empty() {
                fields.set("passwords", passwords);
            }
            let mut subjects = Vec::new();
            for one in self.owned(consumer, &called, "jwt_secrets") {
                if let Some((authenticator, issuer)) = keys.take(one, &called, &mut self.draft) {
                    let subject = Map::new().with("authenticator", authenticator);
                    subjects.push(subject.with("value", issuer));
                }
            }
            if !subjects.is_empty() {
                fields.set("subjects", subjects);
            }
            if let Some(limits) =
                super::kong_guards::of_consumer(consumer, &called, &mut self.draft)
            {
                fields.set("limits", limits);
            }
            let known = [
                "username",
                "custom_id",
                "acls",
                "groups",
                "keyauth_credentials",
                "basicauth_credentials",
                "jwt_secrets",
                "plugins",
            ];
            self.others(consumer, &format!("the consumer `{called}`"), &known);
            self.draft.add(Kind::Consumers, &place, fields);
        }
        for (group, place) in groups {
            let name = super::slug(&group, "group");
            if self.draft.names.insert((Kind::Groups.word(), name.clone())) {
                self.draft.add(Kind::Groups, &place, Map::new().with("name", name));
            }
        }
        keys
    }

    /// What stands below a consumer, or beside it and says whose it is.
    fn owned(&self, consumer: View<'d>, called: &str, word: &str) -> Vec<View<'d>> {
        let beside = self.root.get(word).items().filter(|one| {
            let whose = reference(one.get("consumer"))
                .or_else(|| one.get("consumer").get("username").text());
            whose.is_some_and(|whose| whose == called)
        });
        consumer.get(word).items().chain(beside).collect()
    }

    fn route(&mut self, service: Option<View<'d>>, route: View<'d>) {
        let place = route.place();
        let called = route.get("name").text().unwrap_or_default();
        let what = format!("the route `{called}`");
        let Some(service) = service else {
            self.draft.warn(&place, format!("{what} has no service, so no upstream; not taken"));
            return;
        };
        let off = |view: View<'_>| view.get("enabled").flag() == Some(false);
        if off(service) {
            self.draft
                .warn(&place, format!("{what} is of a service that is switched off; not taken"));
            return;
        }
        let protocols = route.get("protocols").texts();
        let http = |one: &String| matches!(&**one, "http" | "https" | "grpc" | "grpcs");
        if !protocols.is_empty() && !protocols.iter().any(http) {
            let message =
                format!("{what} is for {}, not for HTTP; not taken", protocols.join(", "));
            self.draft.warn(&place, message);
            return;
        }
        if protocols.len() == 1 && protocols.iter().all(|one| one == "https" || one == "grpcs") {
            let message = format!("{what} is for https alone: that is what its listener says here");
            self.draft.warn(&route.get("protocols").place(), message);
        }
        let preserve = route.get("preserve_host").flag() == Some(true);
        let Some((upstream, base)) = self.upstream(service, preserve) else {
            self.draft.warn(&place, format!("{what} is left out, as its service is"));
            return;
        };
        let mut conditions = Map::new();
        let hosts: Vec<String> = route.get("hosts").texts();
        if !hosts.is_empty() {
            conditions.set(
                "hosts",
                hosts.iter().map(|host| host.to_ascii_lowercase()).collect::<Vec<_>>(),
            );
        }
        let methods = route.get("methods").texts();
        let mut headers = Vec::new();
        for (name, values) in route.get("headers").entries() {
            let values = values.texts();
            let header = Map::new().with("name", name.to_ascii_lowercase());
            headers.push(match values.as_slice() {
                [one] if !one.starts_with("~*") => header.with("exact", one.as_str()),
                [one] => header.with("regex", format!("(?i){}", one.trim_start_matches("~*"))),
                several => {
                    let any: Vec<String> = several.iter().map(|one| regex::escape(one)).collect();
                    header.with("regex", format!("^(?:{})$", any.join("|")))
                }
            });
        }
        let known = [
            "name",
            "paths",
            "hosts",
            "methods",
            "headers",
            "protocols",
            "strip_path",
            "preserve_host",
            "plugins",
            "service",
            "path_handling",
            "regex_priority",
            "https_redirect_status_code",
            "request_buffering",
            "response_buffering",
        ];
        self.others(route, &what, &known);
        if route.get("regex_priority").number().is_some_and(|one| one > 0) {
            let message = format!("{what}: regular expressions are tried in the order of the spec");
            self.draft.warn(&route.get("regex_priority").place(), message);
        }
        let mut paths = route.get("paths").texts();
        if paths.is_empty() {
            paths.push("/".into());
        }
        let strip = route.get("strip_path").flag() != Some(false);
        for path in paths {
            let wanted = if called.is_empty() { format!("route{path}") } else { called.clone() };
            let name = self.draft.name(Kind::Routes, &wanted);
            let mut fields = Map::new().with("name", name.as_str());
            let mut matches = conditions.clone();
            match path.strip_prefix('~') {
                Some(pattern) => {
                    let start = if pattern.starts_with('^') { "" } else { "^" };
                    matches.set("path", Map::new().with("regex", format!("{start}{pattern}")));
                }
                None if path == "/" => {}
                None => {
                    self.prefixes = true;
                    matches.set("path", path.as_str());
                }
            }
            if !methods.is_empty() {
                matches.set("methods", methods.clone());
            }
            if !headers.is_empty() {
                matches.set("headers", headers.clone());
            }
            if !matches.is_empty() {
                fields.set("match", matches);
            }
            fields.set("upstream", upstream.as_str());
            let whole = path.trim_end_matches('/');
            let replaced = match (path.starts_with('~'), strip) {
                (true, _) if strip || !base.is_empty() => {
                    let message = format!(
                        "{what}: behind a regular expression the path is neither stripped nor put below \
                         the service's; the upstream sees it as it came"
                    );
                    self.draft.warn(&place, message);
                    None
                }
                (true, _) => None,
                (false, true) if whole.is_empty() && base.is_empty() => None,
                (false, true) if base.is_empty() => {
                    fields.set("rewrite", Map::new().with("strip_prefix", true));
                    None
                }
                (false, true) => Some(base.clone()),
                (false, false) if base.is_empty() => None,
                (false, false) => Some(format!("{base}{whole}")),
            };
            if let Some(prefix) = replaced {
                fields.set("rewrite", Map::new().with("replace_prefix", prefix));
            }
            let mut guards = std::mem::take(&mut self.guards);
            guards.apply(service, route, &mut fields, &mut self.draft);
            self.guards = guards;
            self.draft.add(Kind::Routes, &place, fields);
        }
    }

    /// The upstream of a service, and the path that it puts before others.
    fn upstream(&mut self, service: View<'d>, preserve: bool) -> Option<(String, String)> {
        let place = service.place();
        let called = service.get("name").text().unwrap_or_default();
        let what = format!("the service `{called}`");
        let text = |field: &str| service.get(field).text();
        let url = text("url");
        let scheme = match &url {
            Some(url) => url.split("://").next().unwrap_or_default().to_owned(),
            None => text("protocol").unwrap_or_else(|| "http".into()),
        };
        let (tls, grpc) = match &*scheme {
            "http" => (false, false),
            "https" => (true, false),
            "grpc" => (false, true),
            "grpcs" => (true, true),
            other => {
                self.draft.warn(&place, format!("{what} speaks {other}, not HTTP; not taken"));
                return None;
            }
        };
        let plain = |host: String, port: Option<u64>, path: String| {
            let port = port.and_then(|port| u16::try_from(port).ok());
            Address { tls, host, port: port.unwrap_or(if tls { 443 } else { 80 }), path }
        };
        let address = match &url {
            Some(url) => Address::parse(&url.replacen("grpc", "http", usize::from(grpc)))?,
            None => {
                let path = text("path").unwrap_or_default();
                plain(text("host").unwrap_or_default(), service.get("port").number(), path)
            }
        };
        let base = address.base().to_owned();
        if let Some(name) = self.upstreams.get(&(place.line, preserve)) {
            return Some((name.clone(), base));
        }
        let name = self.draft.name(Kind::Upstreams, &called);
        let mut fields = Map::new().with("name", name.as_str());
        let mut host_header = None;
        let pool = self
            .root
            .get("upstreams")
            .items()
            .find(|one| one.get("name").text().is_some_and(|name| name == address.host));
        match pool {
            Some(pool) => host_header = self.pool(pool, &mut fields),
            None => {
                fields.set("targets", vec![address.target()]);
            }
        }
        if !preserve {
            match host_header {
                Some(host) => fields.set("host_header", Map::new().with("value", host)),
                None => fields.set("host_header", "target"),
            };
        }
        if grpc {
            fields.set("protocol", "http2");
        }
        if tls {
            let mut tls = Map::new();
            match service.get("tls_verify").flag() {
                Some(false) => {
                    tls.set("verify", false);
                }
                Some(true) => {}
                None => {
                    let message =
                        format!("{what}: its certificate is verified here, by Kong's default not");
                    self.draft.warn(&place, message);
                }
            }
            fields.set("tls", tls);
        }
        let mut timeouts = Map::new();
        for (kong, own) in [("connect_timeout", "connect_ms"), ("read_timeout", "first_byte_ms")] {
            if let Some(ms) = service.get(kong).number() {
                timeouts.set(own, ms);
            }
        }
        if !timeouts.is_empty() {
            fields.set("timeouts", timeouts);
        }
        if let Some(retries) = service.get("retries").number() {
            fields.set("retry", Map::new().with("attempts", (retries + 1).min(10)));
            if retries > 9 {
                let message = format!("{what}: ten tries at most, not {retries} retries");
                self.draft.warn(&service.get("retries").place(), message);
            }
        }
        let known = [
            "name",
            "url",
            "protocol",
            "host",
            "port",
            "path",
            "routes",
            "plugins",
            "enabled",
            "connect_timeout",
            "read_timeout",
            "retries",
            "tls_verify",
        ];
        self.others(service, &what, &known);
        self.draft.add(Kind::Upstreams, &place, fields);
        self.upstreams.insert((place.line, preserve), name.clone());
        Some((name, base))
    }

    /// Targets, balancing and checks of an upstream of Kong; returns the Host that it wants.
    fn pool(&mut self, pool: View<'d>, fields: &mut Map) -> Option<String> {
        let called = pool.get("name").text().unwrap_or_default();
        let what = format!("the upstream `{called}`");
        let beside = self.root.get("targets").items();
        let beside =
            beside.filter(|one| reference(one.get("upstream")).as_deref() == Some(&*called));
        let all: Vec<View<'d>> = pool.get("targets").items().chain(beside).collect();
        let weights = all.iter().map(|one| one.get("weight").number().unwrap_or(100));
        let most = weights.max().unwrap_or(100).max(1);
        let mut targets = Vec::new();
        for one in all {
            let address = one.get("target").text().unwrap_or_default();
            let port =
                address.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
            let address = if port { address } else { format!("{address}:8000") };
            let weight = one.get("weight").number().unwrap_or(100);
            if weight == 0 {
                self.draft
                    .warn(&one.place(), format!("the target {address} has weight 0; left out"));
                continue;
            }
            let weight = if most > 1_000 { (weight * 1_000 / most).max(1) } else { weight };
            targets.push(Map::new().with("address", address).with("weight", weight));
        }
        fields.set("targets", targets);
        let text = |field: &str| pool.get(field).text();
        let key = match text("hash_on").as_deref() {
            Some("consumer") => Some(Yaml::from("consumer")),
            Some("ip") => Some("client_ip".into()),
            Some("header") => {
                let header = text("hash_on_header").unwrap_or_default().to_ascii_lowercase();
                Some(Map::new().with("header", header).into())
            }
            Some("cookie") => {
                Some(Map::new().with("cookie", text("hash_on_cookie").unwrap_or_default()).into())
            }
            None | Some("none") => None,
            Some(other) => {
                let message = format!("{what}: hash_on {other} is not taken");
                self.draft.warn(&pool.get("hash_on").place(), message);
                None
            }
        };
        let balance: Yaml = match (text("algorithm").as_deref(), key) {
            (Some("least-connections"), _) => "least_connections".into(),
            (Some("latency"), _) => "power_of_two".into(),
            (Some("consistent-hashing") | None, Some(key)) => Map::new().with("hash", key).into(),
            _ => "weighted".into(),
        };
        fields.set("balance", balance);
        let checks = pool.get("healthchecks");
        self.active(checks.get("active"), &what, fields);
        self.passive(checks.get("passive"), &what, fields);
        let known = [
            "name",
            "targets",
            "algorithm",
            "hash_on",
            "hash_on_header",
            "hash_on_cookie",
            "healthchecks",
            "host_header",
            "slots",
        ];
        self.others(pool, &what, &known);
        text("host_header")
    }

    fn active(&mut self, active: View<'d>, what: &str, fields: &mut Map) {
        // An interval of 0, which is the default, switches them off.
        let interval = |side: &str| active.get(side).get("interval").thousandths();
        let Some(ms) = interval("healthy").or(interval("unhealthy")).filter(|ms| *ms > 0) else {
            return;
        };
        let mut health = Map::new();
        match active.get("type").text().as_deref() {
            None | Some("http" | "https") => {
                let path = active.get("http_path").text().unwrap_or_else(|| "/".into());
                let mut http = Map::new().with("path", path);
                let statuses = active.get("healthy").get("http_statuses");
                let statuses: Vec<u64> = statuses.items().filter_map(|one| one.number()).collect();
                if !statuses.is_empty() {
                    http.set("statuses", statuses);
                }
                health.set("http", http);
            }
            Some("tcp") => {
                health.set("tcp", Map::new());
            }
            Some("grpc" | "grpcs") => {
                health.set("grpc", Map::new());
            }
            Some(other) => {
                let message = format!("{what}: checks by {other} are not taken");
                self.draft.warn(&active.place(), message);
                return;
            }
        }
        let timeout = active.get("timeout").thousandths().unwrap_or(1_000);
        let ms = ms.clamp(100, 3_600_000);
        health.set("interval_ms", ms);
        health.set("timeout_ms", timeout.clamp(1, ms));
        if let Some(after) = active.get("healthy").get("successes").number().filter(|n| *n > 0) {
            health.set("healthy_after", after);
        }
        let bad = active.get("unhealthy");
        let after = bad.get("http_failures").number().or(bad.get("tcp_failures").number());
        if let Some(after) = after.filter(|n| *n > 0) {
            health.set("unhealthy_after", after);
        }
        fields.set("health", health);
    }

    fn passive(&mut self, passive: View<'d>, what: &str, fields: &mut Map) {
        let bad = passive.get("unhealthy");
        let mut outlier = Map::new();
        if let Some(failures) = bad.get("http_failures").number().filter(|n| *n > 0) {
            outlier.set("consecutive_5xx", failures);
        }
        if let Some(failures) = bad.get("tcp_failures").number().filter(|n| *n > 0) {
            outlier.set("consecutive_gateway", failures);
        }
        if !outlier.is_empty() {
            let message = format!(
                "{what}: passive checks become outlier ejection, from which targets return by themselves"
            );
            self.draft.warn(&passive.place(), message);
            fields.set("outlier", outlier);
        }
    }
}
