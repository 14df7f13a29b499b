//! nginx: servers as hosts and listeners, locations as routes, upstreams as upstreams.
//!
//! Only what passes requests on has a counterpart. A location that does something else is written as a
//! closed route, lest its requests fall to a broader one.

use std::collections::BTreeMap;
use std::path::Path;

use super::nginx_location::{Location, Settings};
use super::nginx_syntax::{self as syntax, Directive};
use super::{Draft, Imported, Kind, Place};
use crate::yaml::{Map, Yaml};

/// What concerns nginx's own processes, or how it writes to sockets: nothing of it is lost.
const OWN: [&str; 33] = [
    "user",
    "pid",
    "worker_processes",
    "worker_rlimit_nofile",
    "worker_cpu_affinity",
    "worker_priority",
    "events",
    "daemon",
    "error_log",
    "access_log",
    "log_format",
    "log_not_found",
    "load_module",
    "sendfile",
    "tcp_nopush",
    "tcp_nodelay",
    "aio",
    "types",
    "types_hash_max_size",
    "types_hash_bucket_size",
    "default_type",
    "charset",
    "index",
    "server_tokens",
    "server_names_hash_bucket_size",
    "server_names_hash_max_size",
    "variables_hash_max_size",
    "proxy_headers_hash_max_size",
    "proxy_headers_hash_bucket_size",
    "proxy_http_version",
    "keepalive_timeout",
    "keepalive_requests",
    "proxy_redirect",
];

/// Reads the configuration `text` of `file`; includes are relative to `directory`.
///
/// # Errors
/// It cannot be read, or no location passes requests on.
pub fn import(file: &str, text: &str, directory: &Path) -> Result<Imported, String> {
    let list = syntax::parse(file, text, directory)?;
    let draft = Draft::new(format!("Made of {file} (nginx) by `sluice import nginx`."));
    let mut walk = Walk {
        draft,
        own: Vec::new(),
        upstreams: BTreeMap::new(),
        written: BTreeMap::new(),
        zones: BTreeMap::new(),
        limits: BTreeMap::new(),
        directory: directory.to_string_lossy().into_owned(),
        prefixes: None,
    };
    // A file with servers or upstreams alone is one that an `http` elsewhere includes.
    let (mut http, mut place) = (Vec::new(), Place { file: file.into(), line: 1 });
    for directive in list {
        match (&*directive.name, directive.block) {
            ("http", Some(below)) => {
                place = directive.place;
                http.extend(below);
            }
            ("stream" | "mail", _) => {
                let message = format!("{} is not HTTP; not taken", directive.name);
                walk.draft.warn(&directive.place, message);
            }
            (_, block) => http.push(Directive { block, ..directive }),
        }
    }
    walk.http(&http);
    if walk.draft.list(Kind::Upstreams).is_empty() {
        return Err(format!("{file}: no location passes requests on (proxy_pass)"));
    }
    if !walk.own.is_empty() {
        let message = format!("settings of nginx itself are not taken: {}", walk.own.join(", "));
        walk.draft.warn(&place, message);
    }
    if let Some(place) = walk.prefixes.take() {
        let message =
            "nginx's prefixes go by characters (/a takes /ab, too), those here by whole segments";
        walk.draft.warn(&place, message);
    }
    walk.draft.finish()
}

pub(super) struct Walk {
    pub draft: Draft,
    /// Directives of [`OWN`] that were met.
    own: Vec<String>,
    /// Upstream blocks by name.
    upstreams: BTreeMap<String, Directive>,
    /// Names of ours by what they are made of.
    pub written: BTreeMap<String, String>,
    /// `limit_req_zone` by name.
    zones: BTreeMap<String, Directive>,
    /// Limits by zone and burst.
    limits: BTreeMap<(String, u64), Option<String>>,
    directory: String,
    /// The first location with a prefix other than `/`.
    pub prefixes: Option<Place>,
}

/// What a server listens on.
struct Listen {
    address: String,
    tls: bool,
    default: bool,
}

impl Walk {
    fn http(&mut self, list: &[Directive]) {
        let mut settings = Settings::default();
        let mut servers = Vec::new();
        for directive in list {
            match &*directive.name {
                "server" => servers.push(directive),
                "upstream" => {
                    self.upstreams.insert(directive.arg(0).into(), directive.clone());
                }
                "limit_req_zone" => {
                    let zone = directive.args.iter().find_map(|arg| arg.strip_prefix("zone="));
                    let zone = zone.and_then(|zone| zone.split(':').next()).unwrap_or_default();
                    self.zones.insert(zone.into(), directive.clone());
                }
                // Websockets: it is `proxy_set_header Upgrade` that counts.
                "map" if directive.arg(0) == "$http_upgrade" => {}
                _ if settings.take(directive, self) => {}
                _ => self.left_out(directive),
            }
        }
        let mut listens = Vec::new();
        for server in &servers {
            listens.push(self.listens(server.block.as_deref().unwrap_or_default()));
        }
        let public = listens.iter().flatten().any(|one| !is_loopback(&one.address));
        for (server, listens) in servers.iter().zip(&listens) {
            let private = public
                && !listens.is_empty()
                && listens.iter().all(|one| is_loopback(&one.address));
            self.server(server, listens, private, &settings);
        }
        let sets: Vec<Vec<&str>> = listens
            .iter()
            .map(|list| list.iter().map(|one| one.address.as_str()).collect())
            .collect();
        if sets.windows(2).any(|two| two.first() != two.last())
            && let Some(server) = servers.first()
        {
            let message = "routes hold on every listener here: what one server of nginx has on its port \
                           alone is to be had on the others' too, under its own host names";
            self.draft.warn(&server.place, message);
        }
    }

    pub fn left_out(&mut self, directive: &Directive) {
        if OWN.contains(&&*directive.name) {
            if !self.own.contains(&directive.name) {
                self.own.push(directive.name.clone());
            }
            return;
        }
        let what = match &*directive.name {
            "include" => format!("{} cannot be read; not followed", directive.line()),
            _ => format!("`{}` is not taken", directive.line()),
        };
        self.draft.warn(&directive.place, what);
    }

    fn listens(&mut self, block: &[Directive]) -> Vec<Listen> {
        let mut list = Vec::new();
        for directive in block.iter().filter(|one| one.name == "listen") {
            let text = directive.arg(0);
            let address = match text.parse::<u16>() {
                Ok(port) => format!("0.0.0.0:{port}"),
                Err(_) if text.starts_with("unix:") => {
                    self.left_out(directive);
                    continue;
                }
                Err(_) => {
                    let text =
                        text.replacen("*:", "0.0.0.0:", 1).replacen("localhost", "127.0.0.1", 1);
                    let port = text.rsplit_once(':').is_some_and(|(host, port)| {
                        port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
                    });
                    if port { text } else { format!("{text}:80") }
                }
            };
            let has = |word: &str| directive.args.iter().any(|arg| arg == word);
            if has("proxy_protocol") {
                let message =
                    "proxy_protocol: say in the listener from whom, proxy_protocol: {from: […]}";
                self.draft.warn(&directive.place, message);
            }
            let default = has("default_server") || has("default");
            list.push(Listen { address, tls: has("ssl"), default });
        }
        if list.is_empty() {
            list.push(Listen { address: "0.0.0.0:80".into(), tls: false, default: false });
        }
        list
    }

    fn server(&mut self, server: &Directive, listens: &[Listen], private: bool, above: &Settings) {
        let block = server.block.as_deref().unwrap_or_default();
        let mut settings = above.below();
        let (mut names, mut locations, mut cert, mut key) = (Vec::new(), Vec::new(), None, None);
        let mut answers = false;
        for directive in block {
            match &*directive.name {
                "listen" => {}
                "server_name" => names.extend(directive.args.iter().map(|arg| (arg, directive))),
                "location" => locations.push(directive),
                "ssl_certificate" => cert = Some(directive.arg(0)),
                "ssl_certificate_key" => key = Some(directive.arg(0)),
                "return" => {
                    answers = true;
                    let message = format!(
                        "`{}`: answers of the gateway's own are not taken",
                        directive.line()
                    );
                    self.draft.warn(&directive.place, message);
                }
                _ if settings.take(directive, self) => {}
                _ => self.left_out(directive),
            }
        }
        let (mut hosts, mut odd) = (Vec::new(), false);
        for (name, directive) in names {
            match &**name {
                "_" | "" | "\"\"" => {}
                name if name.starts_with('~') || name.ends_with(".*") => {
                    odd = true;
                    let message =
                        format!("the server_name {name} is not taken: hosts have no such patterns");
                    self.draft.warn(&directive.place, message);
                }
                name => match name.strip_prefix('.') {
                    Some(rest) => {
                        hosts.extend([rest.to_lowercase(), format!("*.{}", rest.to_lowercase())])
                    }
                    None => hosts.push(name.to_lowercase()),
                },
            }
        }
        if odd && hosts.is_empty() {
            self.draft.warn(&server.place, "this server is left out, as no host of it is left");
            return;
        }
        if listens.iter().any(|one| one.default) && !hosts.is_empty() {
            let message = format!(
                "default_server: other hosts than {} get 404 here; leave `hosts` out for any",
                hosts.join(", ")
            );
            self.draft.warn(&server.place, message);
        }
        hosts.dedup();
        if private {
            settings.private = true;
            let message = "this server listens on the loopback alone; its routes serve nobody else here, \
                           by `networks`";
            self.draft.warn(&server.place, message);
        }
        // A server that only sends clients elsewhere would serve in clear what others have over TLS.
        if answers && locations.is_empty() {
            self.draft
                .warn(&server.place, "this server passes nothing on; it has no listener here");
            return;
        }
        for listen in listens {
            self.listen(listen, &hosts, (cert, key), &server.place);
        }
        Location::server(self, &server.place, &locations, &hosts, &settings);
    }

    fn listen(
        &mut self,
        listen: &Listen,
        hosts: &[String],
        (cert, key): (Option<&str>, Option<&str>),
        place: &Place,
    ) {
        let at =
            self.draft.list(Kind::Listeners).iter().position(|one| {
                one.fields.get("listen") == Some(&Yaml::from(listen.address.as_str()))
            });
        let at = at.unwrap_or_else(|| {
            let port = listen.address.rsplit(':').next().unwrap_or_default();
            let scheme = if listen.tls { "https" } else { "http" };
            let name = self.draft.name(Kind::Listeners, &format!("{scheme}-{port}"));
            let fields = Map::new().with("name", name).with("listen", listen.address.as_str());
            self.draft.add(Kind::Listeners, place, fields);
            self.draft.list(Kind::Listeners).len() - 1
        });
        if !listen.tls {
            return;
        }
        let (Some(cert), Some(key)) = (cert, key) else {
            self.draft
                .warn(place, "ssl without ssl_certificate and ssl_certificate_key; not taken");
            return;
        };
        let (cert, key) = (self.file(cert), self.file(key));
        for file in [&cert, &key] {
            if std::fs::File::open(file).is_err() {
                let message =
                    format!("{file} cannot be read from here; `sluice check` will say so, too");
                self.draft.warn(place, message);
            }
        }
        let mut one = Map::new().with("cert", cert).with("key", key);
        let names: Vec<&String> =
            hosts.iter().filter(|host| host.contains(|c: char| c.is_alphabetic())).collect();
        if !names.is_empty() {
            one.set("names", names.into_iter().cloned().collect::<Vec<_>>());
        }
        let listener = &mut self.draft.entities[Kind::Listeners as usize][at].fields;
        let tls = listener.map("tls");
        // Two servers of one certificate have one of it.
        match tls.list("certificates") {
            Some(list) if list.contains(&Yaml::from(one.clone())) => {}
            Some(list) => list.push(one.into()),
            None => {
                tls.set("certificates", vec![one]);
            }
        }
    }

    pub fn has_upstream(&self, name: &str) -> bool {
        self.upstreams.contains_key(name)
    }

    /// The name of a file from anywhere.
    pub fn file(&self, name: &str) -> String {
        Path::new(&self.directory).join(name).to_string_lossy().into_owned()
    }

    /// The name of our upstream for an address or an upstream block.
    pub fn upstream(
        &mut self,
        (place, address): (&Place, &super::Address),
        explicit_port: bool,
        (host, tls): (Yaml, Map),
    ) -> String {
        let block = self.upstreams.get(&address.host).filter(|_| !explicit_port).cloned();
        let mut fields = Map::new();
        match &block {
            Some(block) => self.pool(block, &mut fields),
            None => {
                fields.set("targets", vec![address.target()]);
            }
        }
        fields.set("host_header", host);
        if address.tls {
            fields.set("tls", tls);
        }
        let made_of = Yaml::from(fields.clone()).document();
        if let Some(name) = self.written.get(&made_of) {
            return name.clone();
        }
        let name = self.draft.name(Kind::Upstreams, &address.host);
        let mut whole = Map::new().with("name", name.as_str());
        whole.append(fields);
        self.draft.add(Kind::Upstreams, block.as_ref().map_or(place, |one| &one.place), whole);
        self.written.insert(made_of, name.clone());
        name
    }

    fn pool(&mut self, block: &Directive, fields: &mut Map) {
        let mut targets = Vec::new();
        let mut balance: Yaml = "weighted".into();
        for directive in block.block.as_deref().unwrap_or_default() {
            match &*directive.name {
                "server" => targets.extend(self.target(directive)),
                "least_conn" => balance = "least_connections".into(),
                "random" => balance = "power_of_two".into(),
                "ip_hash" => balance = Map::new().with("hash", "client_ip").into(),
                "hash" => {
                    let key = directive.arg(0);
                    let key: Option<Yaml> =
                        match (key.strip_prefix("$http_"), key.strip_prefix("$cookie_")) {
                            (Some(header), _) => {
                                Some(Map::new().with("header", header.replace('_', "-")).into())
                            }
                            (_, Some(cookie)) => Some(Map::new().with("cookie", cookie).into()),
                            _ if matches!(key, "$remote_addr" | "$binary_remote_addr") => {
                                Some("client_ip".into())
                            }
                            _ => None,
                        };
                    match key {
                        Some(key) => balance = Map::new().with("hash", key).into(),
                        None => self.left_out(directive),
                    }
                }
                "keepalive" => {
                    if let Ok(idle) = directive.arg(0).parse::<u64>() {
                        fields.set("pool", Map::new().with("max_idle", idle.min(65_535)));
                    }
                }
                "zone" | "keepalive_requests" | "keepalive_timeout" => {}
                _ => self.left_out(directive),
            }
        }
        fields.set("targets", targets);
        fields.set("balance", balance);
    }

    fn target(&mut self, server: &Directive) -> Option<Map> {
        let address = server.arg(0);
        if address.starts_with("unix:") || server.args.iter().any(|arg| arg == "down") {
            self.draft.warn(&server.place, format!("`{}` is not taken", server.line()));
            return None;
        }
        let port = address.rsplit_once(':').is_some_and(|(host, port)| {
            port.parse::<u16>().is_ok() && (!host.contains(':') || host.ends_with(']'))
        });
        let address = if port { address.to_owned() } else { format!("{address}:80") };
        let mut target = Map::new().with("address", address);
        for arg in server.args.iter().skip(1) {
            match (arg.as_str(), arg.strip_prefix("weight=")) {
                (_, Some(weight)) => {
                    let weight = weight.parse::<u64>().unwrap_or(1).clamp(1, 1_000);
                    target.set("weight", weight);
                }
                ("backup", _) => {
                    target.set("priority", 1_u64);
                }
                ("resolve", _) => {}
                (other, _) => {
                    let message = format!(
                        "{other} of a target is not taken: see outlier, target_bounds, breaker"
                    );
                    self.draft.warn(&server.place, message);
                }
            }
        }
        Some(target)
    }

    /// The limit for `limit_req`: so many at once, and the rate of the zone in the long run.
    pub fn limit(&mut self, directive: &Directive) -> Option<String> {
        let value = |name: &str| directive.args.iter().find_map(|arg| arg.strip_prefix(name));
        let zone = value("zone=").unwrap_or_default().to_owned();
        let burst = value("burst=").and_then(|burst| burst.parse::<u64>().ok()).unwrap_or(0);
        let burst = burst.min(1_000_000);
        if let Some(known) = self.limits.get(&(zone.clone(), burst)) {
            return known.clone();
        }
        let name = self.new_limit(directive, &zone, burst);
        self.limits.insert((zone, burst), name.clone());
        name
    }

    fn new_limit(&mut self, directive: &Directive, zone: &str, burst: u64) -> Option<String> {
        let Some(definition) = self.zones.get(zone).cloned() else {
            self.draft
                .warn(&directive.place, format!("there is no limit_req_zone `{zone}`; not taken"));
            return None;
        };
        let rate =
            definition.args.iter().find_map(|arg| arg.strip_prefix("rate=")).unwrap_or_default();
        let (digits, unit_ms) = match (rate.strip_suffix("r/s"), rate.strip_suffix("r/m")) {
            (Some(digits), _) => (digits, 1_000),
            (_, Some(digits)) => (digits, 60_000),
            _ => ("", 0),
        };
        let by: Option<Vec<Yaml>> = match definition.arg(0) {
            "$binary_remote_addr" | "$remote_addr" => Some(vec!["address".into()]),
            "$server_name" | "$host" | "$http_host" => Some(Vec::new()),
            key => key
                .strip_prefix("$http_")
                .map(|header| vec![Map::new().with("header", header.replace('_', "-")).into()]),
        };
        let (Ok(rate @ 1..), Some(by)) = (digits.parse::<u64>(), by) else {
            self.draft.warn(&definition.place, format!("`{}` is not taken", definition.line()));
            return None;
        };
        // A bucket that leaks `rate` and holds `burst` more than one lets in `burst` + 1 in the time in
        // which so many leak.
        let requests = burst + 1;
        let ms = (requests * unit_ms / rate).clamp(10, 2_678_400_000);
        if !directive.args.iter().any(|arg| arg == "nodelay") {
            let message = "limit_req delays what is too much; here it is refused (429)";
            self.draft.warn(&directive.place, message);
        }
        let wanted = if burst == 0 { zone.to_owned() } else { format!("{zone}-{burst}") };
        let name = self.draft.name(Kind::Limits, &wanted);
        let mut fields = Map::new().with("name", name.as_str());
        if !by.is_empty() {
            fields.set("by", Yaml::List(by));
        }
        fields.set("requests", requests).set("per", format!("{ms}ms")).set("mode", "local");
        self.draft.add(Kind::Limits, &definition.place, fields);
        Some(name)
    }
}

fn is_loopback(address: &str) -> bool {
    address.starts_with("127.") || address.starts_with("[::1]")
}
