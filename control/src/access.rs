//! Who may do what with the admin API.

use std::collections::{HashMap, HashSet};

use ring::digest::{SHA256, digest};

use crate::diff::{Changes, Diff};
use crate::spec::{Access, DEFAULT_WORKSPACE, Role, Spec};

/// Somebody who was let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    /// Name of its entry of `admin.access`.
    pub name: String,
    pub via: Via,
    pub role: Role,
    /// What it may change; empty: everything.
    pub workspaces: Vec<String>,
}

/// How somebody was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    /// Nobody is listed, so everybody is let in.
    Open,
    /// The token in the state directory: a user who may read there.
    Local,
    Token,
    Certificate,
}

impl Principal {
    /// Who runs this process, or may read what it may.
    pub fn local() -> Principal {
        let (name, workspaces) = ("local".into(), Vec::new());
        Principal { name, via: Via::Local, role: Role::Admin, workspaces }
    }

    fn open() -> Principal {
        Principal { name: "anybody".into(), via: Via::Open, ..Principal::local() }
    }

    /// Whose change it is: who is listed cannot claim to be somebody else.
    pub fn author(&self, claimed: &str) -> String {
        match self.via {
            Via::Token | Via::Certificate => self.name.clone(),
            Via::Open | Via::Local if claimed.is_empty() => self.name.clone(),
            Via::Open | Via::Local => claimed.into(),
        }
    }

    /// # Errors
    /// What it lacks.
    pub fn has(&self, role: Role) -> Result<(), String> {
        match self.role >= role {
            true => Ok(()),
            false => Err(format!("this needs the role {role}; `{}` is {}", self.name, self.role)),
        }
    }

    /// Whether it may make the change `diff` from `old` to `new`.
    ///
    /// # Errors
    /// What it lacks.
    pub fn may_change(&self, diff: &Diff, old: &Spec, new: &Spec) -> Result<(), String> {
        if diff.is_empty() {
            return Ok(());
        }
        self.has(Role::Editor)?;
        // Whole, so that no list is forgotten.
        let Diff {
            settings,
            authenticators,
            groups,
            consumers,
            limits,
            apis,
            protos,
            listeners,
            upstreams,
            routes,
            moved_routes,
        } = diff;
        if settings.iter().any(|one| one.field.starts_with("admin")) {
            self.has(Role::Admin).map_err(|why| format!("a change of `admin`: {why}"))?;
        }
        if self.workspaces.is_empty() {
            return Ok(());
        }
        let whole = |what: &str| {
            let own = self.workspaces.join(", ");
            format!(
                "{what} can be changed only without a bound to workspaces; `{}` may change {own}",
                self.name
            )
        };
        if let Some(one) = settings.first() {
            return Err(whole(&format!("`{}`", one.field)));
        }
        if let Some(name) = touched(listeners).next() {
            return Err(whole(&format!("the listener `{name}`")));
        }
        macro_rules! judge {
            ($($kind:literal $list:ident),*) => {$(
                let names: HashSet<&str> = touched($list).collect();
                let places = |spec: &Spec| -> Vec<(String, String)> {
                    let touched = spec.$list.iter().filter(|one| names.contains(one.name.as_str()));
                    let place = touched.map(|one| (one.name.clone(), workspace(one.workspace.as_deref())));
                    place.collect()
                };
                self.within($kind, places(old).into_iter().chain(places(new)))?;
            )*};
        }
        judge!(
            "authenticator" authenticators, "group" groups, "consumer" consumers, "limit" limits, "api" apis,
            "proto" protos,            "upstream" upstreams, "route" routes
        );
        let moved: HashMap<&str, String> = new
            .routes
            .iter()
            .map(|one| (one.name.as_str(), workspace(one.workspace.as_deref())))
            .collect();
        let places = moved_routes
            .iter()
            .filter_map(|one| Some((one.name.clone(), moved.get(one.name.as_str())?.clone())));
        self.within("route", places)
    }

    /// Whether it may have stored answers of that route go, or of any without one.
    ///
    /// # Errors
    /// What it lacks.
    pub fn may_purge(&self, route: Option<&str>, spec: &Spec) -> Result<(), String> {
        if self.workspaces.is_empty() {
            return Ok(());
        }
        let Some(name) = route else {
            let own = self.workspaces.join(", ");
            return Err(format!("`{}` may change only {own}: name a route of it", self.name));
        };
        let routes = spec.routes.iter().filter(|one| one.name == name);
        let places = routes.map(|one| (one.name.clone(), workspace(one.workspace.as_deref())));
        self.within("route", places)
    }

    fn within(
        &self,
        kind: &str,
        places: impl Iterator<Item = (String, String)>,
    ) -> Result<(), String> {
        for (name, place) in places {
            if !self.workspaces.contains(&place) {
                return Err(format!(
                    "the {kind} `{name}` is of the workspace `{place}`; `{}` may change only {}",
                    self.name,
                    self.workspaces.join(", ")
                ));
            }
        }
        Ok(())
    }
}

fn touched(changes: &Changes) -> impl Iterator<Item = &str> {
    let named = changes.added.iter().chain(&changes.removed).map(|one| one.name.as_str());
    named.chain(changes.changed.iter().map(|one| one.name.as_str()))
}

fn workspace(named: Option<&str>) -> String {
    named.unwrap_or(DEFAULT_WORKSPACE).into()
}

/// What somebody shows.
#[derive(Clone, Debug, Default)]
pub struct Proof {
    /// After `Bearer ` in the Authorization field.
    pub token: Option<String>,
    /// Names in its client certificate, which has been verified.
    pub names: Vec<String>,
}

/// The keeper of the door.
#[derive(Clone)]
pub struct Gate {
    /// SHA-256 of the token in the state directory.
    local: [u8; 32],
}

impl Gate {
    pub fn new(local_token: &str) -> Gate {
        Gate { local: sha256(local_token) }
    }

    /// Whom `proof` proves, by the list `access`; `None`: nobody.
    pub fn identify(&self, access: &[Access], proof: &Proof) -> Option<Principal> {
        if let Some(token) = &proof.token {
            let shown = sha256(token);
            if same(&shown, &self.local) {
                return Some(Principal::local());
            }
            // All of them, so that the time tells nothing.
            let mut found = None;
            for one in access {
                if one.token_sha256.is_some_and(|known| same(&shown, &known.0)) {
                    found = Some(one);
                }
            }
            return match found {
                Some(one) => Some(listed(one, Via::Token)),
                None if access.is_empty() => Some(Principal::open()),
                None => None,
            };
        }
        if access.is_empty() {
            return Some(Principal::open());
        }
        let known =
            |one: &&Access| one.certificate.as_ref().is_some_and(|name| proof.names.contains(name));
        access.iter().find(known).map(|one| listed(one, Via::Certificate))
    }
}

fn listed(one: &Access, via: Via) -> Principal {
    let (name, workspaces) = (one.name.clone(), one.workspaces.clone());
    Principal { name, via, role: one.role, workspaces }
}

fn sha256(text: &str) -> [u8; 32] {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, text.as_bytes()).as_ref());
    bytes
}

/// In a time that does not depend on where they differ.
fn same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    let differing = one.iter().zip(other).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::diff;
    use crate::spec::{Digest, load};

    fn entry(name: &str, token: &str, role: Role) -> Access {
        Access {
            name: name.into(),
            token_sha256: Some(Digest(sha256(token))),
            certificate: None,
            role,
            workspaces: Vec::new(),
        }
    }

    #[test]
    fn who_is_listed_is_let_in_and_nobody_else() {
        let gate = Gate::new("slt_local");
        let by = |token: &str| Proof { token: Some(token.into()), names: Vec::new() };
        let named = |name: &str| Proof { token: None, names: vec!["x".into(), name.into()] };
        assert_eq!(gate.identify(&[], &Proof::default()).unwrap().via, Via::Open);
        assert_eq!(gate.identify(&[], &by("anything")).unwrap().via, Via::Open);
        let ops = Access {
            certificate: Some("ops.example.com".into()),
            token_sha256: None,
            ..entry("ops", "", Role::Editor)
        };
        let access = [entry("ci", "slt_ci", Role::Viewer), ops];
        let told =
            |proof: &Proof| gate.identify(&access, proof).map(|one| (one.name, one.via, one.role));
        assert_eq!(told(&by("slt_ci")), Some(("ci".into(), Via::Token, Role::Viewer)));
        assert_eq!(told(&by("slt_local")), Some(("local".into(), Via::Local, Role::Admin)));
        assert_eq!(
            told(&named("ops.example.com")),
            Some(("ops".into(), Via::Certificate, Role::Editor))
        );
        for nobody in
            [Proof::default(), by(""), by("slt_c"), by("slt_ci "), named("ops"), named("")]
        {
            assert_eq!(told(&nobody), None, "{nobody:?}");
        }
        // A wrong token is not made good by a certificate.
        let both = Proof { token: Some("wrong".into()), ..named("ops.example.com") };
        assert_eq!(told(&both), None);
    }

    #[test]
    fn who_is_listed_cannot_claim_to_be_another() {
        let listed = listed(&entry("ci", "x", Role::Editor), Via::Token);
        assert_eq!(listed.author("root"), "ci");
        assert_eq!(Principal::local().author("ada"), "ada");
        assert_eq!(Principal::open().author(""), "anybody");
    }

    const OLD: &str = "version: 1
listeners: [{name: web, listen: ':8080'}]
upstreams: [{name: u, targets: ['a:1'], workspace: shop}, {name: v, targets: ['a:1']}]
routes:
- {name: a, upstream: u, match: {path: /a}, workspace: shop}
- {name: b, upstream: u, match: {path: /b}, workspace: shop}
- {name: c, upstream: v, match: {path: /c}}
";

    fn judge(role: Role, workspaces: &[&str], change: (&str, &str)) -> Result<(), String> {
        let spec = |text: &str| {
            let loaded = load("t.yaml", text);
            loaded.spec.unwrap_or_else(|| panic!("{:?}", loaded.problems))
        };
        let (old, new) = (spec(OLD), spec(&OLD.replace(change.0, change.1)));
        let workspaces = workspaces.iter().map(|name| (*name).into()).collect();
        let one = Principal { name: "p".into(), via: Via::Token, role, workspaces };
        one.may_change(&diff(&old, &new), &old, &new)
    }

    #[test]
    fn roles_and_workspaces_bound_what_may_be_changed() {
        let own = ("path: /a}", "path: /a2}");
        let others = ("path: /c}", "path: /c2}");
        assert!(judge(Role::Viewer, &[], own).unwrap_err().contains("role editor"));
        assert_eq!(judge(Role::Viewer, &[], ("", "")), Ok(()));
        for (role, workspaces) in
            [(Role::Editor, &[][..]), (Role::Editor, &["x", "shop"]), (Role::Admin, &[])]
        {
            assert_eq!(judge(role, workspaces, own), Ok(()));
        }
        assert!(judge(Role::Editor, &["shop"], others).unwrap_err().contains("`default`"));
        assert_eq!(judge(Role::Editor, &["default"], others), Ok(()));
        // Neither take what is another's nor give away.
        let taken = ("path: /c}", "path: /c}, workspace: shop");
        assert!(judge(Role::Editor, &["shop"], taken).is_err());
        assert!(judge(Role::Editor, &["default"], taken).is_err());
        assert_eq!(judge(Role::Editor, &["default", "shop"], taken), Ok(()));
        let gone = ("- {name: c, upstream: v, match: {path: /c}}\n", "");
        assert!(judge(Role::Editor, &["shop"], gone).is_err());
        let listener = ("':8080'", "':8081'");
        assert!(
            judge(Role::Editor, &["shop", "default"], listener).unwrap_err().contains("listener")
        );
        assert_eq!(judge(Role::Editor, &[], listener), Ok(()));
        let api = ("routes:\n", "apis: [{name: x, openapi: x.yaml, workspace: shop}]\nroutes:\n");
        assert!(judge(Role::Editor, &["default"], api).unwrap_err().contains("the api `x`"));
        assert_eq!(judge(Role::Editor, &["shop"], api), Ok(()));
        let node = ("version: 1\n", "version: 1\nnode: {via: x}\n");
        assert!(judge(Role::Editor, &["shop", "default"], node).unwrap_err().contains("node.via"));
        let admin = ("version: 1\n", "version: 1\nadmin: {listen: '127.0.0.1:1'}\n");
        assert!(judge(Role::Editor, &[], admin).unwrap_err().contains("role admin"));
        assert_eq!(judge(Role::Admin, &[], admin), Ok(()));
    }
}
