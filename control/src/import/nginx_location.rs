//! Locations of nginx as routes, with what they inherit.

use std::collections::HashSet;

use super::nginx::Walk;
use super::nginx_syntax::Directive;
use super::{Address, Kind, Place, close, network};
use crate::yaml::{Map, Yaml};

/// Largest body where nginx has no bound.
const ANY_SIZE: u64 = 1 << 53;
/// What [`crate::spec::Timeouts`] bounds a whole exchange by, in milliseconds.
const TOTAL_MS: u64 = 300_000;

/// What a location inherits.
#[derive(Clone, Default)]
pub struct Settings {
    /// Only the loopback may call.
    pub private: bool,
    max_body: Option<u64>,
    connect_ms: Option<u64>,
    read_ms: Option<u64>,
    /// `proxy_set_header`.
    headers: Vec<(String, String, Place)>,
    /// `allow` and `deny` in their order.
    access: Vec<(bool, String)>,
    limits: Vec<Directive>,
    /// Why nobody may call: protection that could not be taken.
    closed: Option<String>,
    verify: bool,
    server_name: Option<String>,
    ca: Option<String>,
    /// Lists that this level has of its own: they replace what is inherited.
    own: HashSet<&'static str>,
}

impl Settings {
    /// For the level below.
    pub fn below(&self) -> Settings {
        Settings { own: HashSet::new(), ..self.clone() }
    }

    /// Takes a directive that is inherited; `false`: it is another.
    pub fn take(&mut self, directive: &Directive, walk: &mut Walk) -> bool {
        let (arg, place) = (directive.arg(0), &directive.place);
        match &*directive.name {
            "client_max_body_size" => match size(arg) {
                Some(0) => self.max_body = Some(ANY_SIZE),
                Some(size) => self.max_body = Some(size.min(ANY_SIZE)),
                None => walk.left_out(directive),
            },
            "proxy_connect_timeout" => self.connect_ms = time(arg),
            "proxy_read_timeout" => self.read_ms = time(arg),
            "proxy_set_header" => {
                if self.own.insert("headers") {
                    self.headers.clear();
                }
                let header = (arg.to_ascii_lowercase(), directive.arg(1).into(), place.clone());
                self.headers.push(header);
            }
            "allow" | "deny" => {
                if self.own.insert("access") {
                    self.access.clear();
                }
                self.access.push((directive.name == "allow", arg.into()));
            }
            "limit_req" => {
                if self.own.insert("limits") {
                    self.limits.clear();
                }
                self.limits.push(directive.clone());
            }
            "limit_req_status" if arg == "429" => {}
            "proxy_ssl_verify" => self.verify = arg == "on",
            "proxy_ssl_server_name" => {}
            "proxy_ssl_name" => self.server_name = Some(arg.into()),
            "proxy_ssl_trusted_certificate" => self.ca = Some(arg.into()),
            "auth_basic" | "auth_request" | "auth_jwt" | "ssl_verify_client" if arg == "off" => {
                if self.closed.as_deref().is_some_and(|why| why.starts_with(&directive.name)) {
                    self.closed = None;
                }
            }
            "satisfy" if arg == "all" => {}
            "auth_basic"
            | "auth_request"
            | "auth_jwt"
            | "ssl_verify_client"
            | "satisfy"
            | "internal"
            | "secure_link"
            | "valid_referers"
            | "access_by_lua_block"
            | "access_by_lua_file"
            | "js_access" => self.close(directive, walk),
            "auth_basic_user_file" => walk.left_out(directive),
            "if" | "limit_except" => self.close(directive, walk),
            _ => return false,
        }
        true
    }

    fn close(&mut self, directive: &Directive, walk: &mut Walk) {
        let why = format!("{} cannot be taken", directive.line());
        walk.draft.warn(&directive.place, format!("{why}; its locations are closed"));
        self.closed.get_or_insert(why);
    }
}

/// How a location is found.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Kindred {
    Exact(String),
    /// With `true` regular expressions are not tried after it.
    Prefix(String, bool),
    Regex(String),
}

/// A location with all that holds for it.
pub struct Location {
    place: Place,
    path: Kindred,
    settings: Settings,
    pass: Option<Directive>,
    /// What it does instead of passing on.
    instead: Option<String>,
}

impl Location {
    /// Writes the routes of a server.
    pub fn server(
        walk: &mut Walk,
        place: &Place,
        locations: &[&Directive],
        hosts: &[String],
        settings: &Settings,
    ) {
        let mut all = Vec::new();
        for location in locations {
            Location::read(walk, location, settings, &mut all);
        }
        let regex = all.iter().any(|one| matches!(one.path, Kindred::Regex(_)));
        if regex {
            // nginx tries regular expressions before what a plain prefix says, and here it is the other way
            // round: so prefixes become regular expressions, after the others, the longest first.
            all.sort_by_key(|one| match &one.path {
                Kindred::Prefix(path, _) => (1, usize::MAX - path.len()),
                _ => (0, 0),
            });
        }
        let mut blocked = Vec::new();
        let mut first = None;
        for one in all {
            match one.upstream(walk) {
                Some(upstream) => {
                    first.get_or_insert_with(|| upstream.0.clone());
                    one.route(walk, hosts, regex, upstream);
                }
                None => blocked.push(one),
            }
        }
        for mut one in blocked {
            let what = one.instead.take().unwrap_or_else(|| "it has no proxy_pass".into());
            let Some(upstream) = &first else {
                walk.draft.warn(&one.place, format!("this location is left out: {what}"));
                continue;
            };
            let message = format!("this location is closed, as it passes nothing on: {what}");
            walk.draft.warn(&one.place, message);
            one.settings.closed = Some(what);
            one.route(walk, hosts, regex, (upstream.clone(), String::new()));
        }
        if locations.is_empty() {
            walk.draft.warn(place, "this server has no location; nothing of it is served");
        }
    }

    fn read(walk: &mut Walk, location: &Directive, above: &Settings, all: &mut Vec<Location>) {
        let (modifier, path) = match location.args.as_slice() {
            [modifier, path] => (modifier.as_str(), path.as_str()),
            [one] => {
                let sign = ["=", "^~", "~*", "~"].into_iter().find(|sign| one.starts_with(*sign));
                let sign = sign.unwrap_or("");
                (sign, &one[sign.len()..])
            }
            _ => return walk.left_out(location),
        };
        let path = match modifier {
            "=" => Kindred::Exact(path.into()),
            "" => Kindred::Prefix(path.into(), false),
            "^~" => Kindred::Prefix(path.into(), true),
            "~" => Kindred::Regex(path.into()),
            "~*" => Kindred::Regex(format!("(?i){path}")),
            _ => return walk.left_out(location),
        };
        if let Kindred::Prefix(path, _) | Kindred::Exact(path) = &path
            && path.starts_with('@')
        {
            return walk.left_out(location);
        }
        let mut settings = above.below();
        let (mut pass, mut instead, mut below) = (None, None, Vec::new());
        for directive in location.block.as_deref().unwrap_or_default() {
            match &*directive.name {
                "proxy_pass" => pass = Some(directive.clone()),
                "location" => below.push(directive),
                "return"
                | "root"
                | "alias"
                | "try_files"
                | "fastcgi_pass"
                | "grpc_pass"
                | "uwsgi_pass"
                | "scgi_pass"
                | "memcached_pass"
                | "content_by_lua_block"
                | "stub_status"
                | "empty_gif" => {
                    instead = Some(directive.line());
                    // Beside proxy_pass it is one thing more that is left out.
                    if location.block.iter().flatten().any(|one| one.name == "proxy_pass") {
                        walk.left_out(directive);
                    }
                }
                _ if settings.take(directive, walk) => {}
                _ => walk.left_out(directive),
            }
        }
        for one in below {
            Location::read(walk, one, &settings, all);
        }
        all.push(Location { place: location.place.clone(), path, settings, pass, instead });
    }

    /// Name of the upstream and the URI that the path's match is replaced by; empty: it stays.
    fn upstream(&self, walk: &mut Walk) -> Option<(String, String)> {
        let pass = self.pass.as_ref()?;
        let url = pass.arg(0);
        let address = Address::parse(url).filter(|_| !url.contains('$'));
        let Some(address) = address else {
            walk.draft.warn(&pass.place, format!("`{}` is not taken", pass.line()));
            return None;
        };
        let authority = url.split_once("://").map_or("", |(_, rest)| rest);
        let authority = authority.split('/').next().unwrap_or_default();
        let port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let mut host: Yaml = match (port, walk.has_upstream(&address.host)) {
            (false, true) => Map::new().with("value", address.host.as_str()).into(),
            _ => "target".into(),
        };
        let asked = self.settings.headers.iter().filter(|(name, ..)| name == "host");
        for (_, value, place) in asked {
            match value.as_str() {
                "$host" | "$http_host" | "$host:$server_port" => host = "preserve".into(),
                "$proxy_host" => {}
                value if !value.contains('$') => host = Map::new().with("value", value).into(),
                value => walk.draft.warn(place, format!("the Host `{value}` is not taken")),
            }
        }
        let mut tls = Map::new();
        if address.tls {
            if !self.settings.verify {
                let message = "the upstream's certificate is verified here, by nginx's default not";
                walk.draft.warn(&pass.place, message);
            }
            if let Some(name) = &self.settings.server_name {
                tls.set("server_name", name.as_str());
            }
            if let Some(ca) = &self.settings.ca {
                tls.set("ca", walk.file(ca));
            }
        }
        let uri = address.path.clone();
        Some((walk.upstream((&pass.place, &address), port, (host, tls)), uri))
    }

    fn route(
        &self,
        walk: &mut Walk,
        hosts: &[String],
        regex: bool,
        (upstream, uri): (String, String),
    ) {
        let Location { place, settings, .. } = self;
        let (path, rewrite) = self.path(walk, regex, &uri);
        let wanted = match &self.path {
            Kindred::Exact(path) | Kindred::Prefix(path, _) | Kindred::Regex(path) => path,
        };
        let wanted = format!("{}{wanted}", hosts.first().map_or("", String::as_str));
        let name = walk.draft.name(Kind::Routes, &wanted);
        let mut fields = Map::new().with("name", name.as_str());
        let mut matches = Map::new();
        if !hosts.is_empty() {
            matches.set("hosts", hosts.to_vec());
        }
        matches.set("path", path);
        fields.set("match", matches);
        fields.set("upstream", upstream);
        if let Some(rewrite) = rewrite {
            fields.set("rewrite", rewrite);
        }
        let mut timeouts = Map::new();
        if let Some(ms) = settings.connect_ms {
            timeouts.set("connect_ms", ms);
        }
        if let Some(ms) = settings.read_ms {
            timeouts.set("first_byte_ms", ms).set("idle_ms", ms);
            if ms >= TOTAL_MS {
                timeouts.set("total_ms", "none");
            }
        }
        if !timeouts.is_empty() {
            fields.set("timeouts", timeouts);
        }
        if let Some(size) = settings.max_body {
            fields.set("max_body_bytes", size);
        }
        self.headers(walk, &mut fields);
        let limits: Vec<String> =
            settings.limits.iter().filter_map(|one| walk.limit(one)).collect();
        if !limits.is_empty() {
            fields.set("limits", limits);
        }
        match (&settings.closed, self.networks()) {
            (Some(why), _) => close(&mut fields, why),
            (None, Ok(None)) => {}
            (None, Ok(Some(networks))) => {
                fields.set("networks", networks);
            }
            (None, Err(why)) => {
                walk.draft.warn(place, format!("this location is closed: {why}"));
                close(&mut fields, &why);
            }
        }
        walk.draft.add(Kind::Routes, place, fields);
    }

    /// What a path must be like, and how it is changed.
    fn path(&self, walk: &mut Walk, regex: bool, uri: &str) -> (Yaml, Option<Map>) {
        let base = uri.trim_end_matches('/');
        let replace = |own: &str| match (uri, base) {
            ("", _) => None,
            (_, base) if base == own.trim_end_matches('/') => None,
            (_, "") => Some(Map::new().with("strip_prefix", true)),
            (_, base) => Some(Map::new().with("replace_prefix", base)),
        };
        match &self.path {
            Kindred::Exact(path) => (Map::new().with("exact", path.as_str()).into(), replace(path)),
            Kindred::Regex(pattern) => {
                if !uri.is_empty() {
                    let message = "a URI behind a regular expression is not taken";
                    walk.draft.warn(&self.place, message);
                }
                (Map::new().with("regex", pattern.as_str()).into(), None)
            }
            Kindred::Prefix(path, last) => {
                let rewrite = replace(path);
                if regex && !last && rewrite.is_none() {
                    let pattern = format!("^{}", regex::escape(path));
                    return (Map::new().with("regex", pattern).into(), None);
                }
                if regex && !last {
                    let message = "this prefix goes before the server's regular expressions here";
                    walk.draft.warn(&self.place, message);
                }
                if path != "/" {
                    walk.prefixes.get_or_insert_with(|| self.place.clone());
                }
                (path.as_str().into(), rewrite)
            }
        }
    }

    fn headers(&self, walk: &mut Walk, fields: &mut Map) {
        for (name, value, place) in &self.settings.headers {
            match (name.as_str(), value.as_str()) {
                // Told upstreams anyway, or handled by the gateway itself.
                (
                    "host" | "connection" | "x-forwarded-for" | "x-forwarded-proto"
                    | "x-forwarded-host" | "x-forwarded-port" | "x-request-id" | "forwarded",
                    _,
                ) => {}
                ("upgrade", "$http_upgrade") => {
                    fields.set("upgrades", vec!["websocket"]);
                }
                _ => {
                    let message =
                        format!("proxy_set_header {name}: upstreams are told X-Forwarded-* only");
                    walk.draft.warn(place, message);
                }
            }
        }
    }

    /// # Errors
    /// Why the order of `allow` and `deny` cannot be said.
    fn networks(&self) -> Result<Option<Map>, String> {
        let Settings { access, private, .. } = &self.settings;
        if access.is_empty() {
            let own = Map::new().with("allow", vec!["127.0.0.0/8", "::1/128"]);
            return Ok(private.then_some(own));
        }
        // What comes after `all` is never reached.
        let end = access.iter().position(|(_, network)| network == "all");
        let rules = &access[..end.unwrap_or(access.len())];
        let open = end.is_none_or(|end| access[end].0);
        let mut lists = [Vec::new(), Vec::new()];
        for (allow, text) in rules {
            let network = network(text).ok_or_else(|| format!("`{text}` is no network"))?;
            lists[usize::from(!allow)].push(network);
        }
        let [allow, deny] = lists;
        let mut networks = Map::new();
        match (open, allow.is_empty(), deny.is_empty()) {
            (true, _, true) => return Ok(None),
            (true, true, false) => {
                networks.set("deny", deny);
            }
            (true, false, false) => {
                return Err(
                    "some networks are allowed out of denied ones, and all others, too".into()
                );
            }
            (false, true, _) => {
                networks.set("deny", vec!["0.0.0.0/0", "::/0"]);
            }
            (false, false, _) => {
                networks.set("allow", allow);
                if !deny.is_empty() {
                    networks.set("deny", deny);
                }
            }
        }
        Ok(Some(networks))
    }
}

/// `60s`, `1m30s`, `500ms`, `60`: in milliseconds.
fn time(text: &str) -> Option<u64> {
    let (mut total, mut rest) = (0_u64, text);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (digits, after) = rest.split_at(end);
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let ms = match unit.trim() {
            "ms" => 1,
            "" | "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total = total.checked_add(digits.parse::<u64>().ok()?.checked_mul(ms)?)?;
        rest = after;
    }
    (!text.is_empty()).then(|| total.clamp(1, 86_400_000))
}

/// `10m`, `512k`, `1g`, `1024`: in bytes.
fn size(text: &str) -> Option<u64> {
    let lower = text.to_ascii_lowercase();
    let (digits, unit) = match lower.strip_suffix(['k', 'm', 'g']) {
        Some(digits) if lower.ends_with('k') => (digits, 1 << 10),
        Some(digits) if lower.ends_with('m') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
        None => (lower.as_str(), 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_sizes() {
        for (text, ms) in [
            ("60", Some(60_000)),
            ("1m30s", Some(90_000)),
            ("500ms", Some(500)),
            ("0", Some(1)),
            ("", None),
            ("x", None),
            ("99999999999999999999s", None),
        ] {
            assert_eq!(time(text), ms, "{text}");
        }
        for (text, bytes) in
            [("10m", Some(10 << 20)), ("1K", Some(1024)), ("7", Some(7)), ("", None), ("m", None)]
        {
            assert_eq!(size(text), bytes, "{text}");
        }
    }
}
