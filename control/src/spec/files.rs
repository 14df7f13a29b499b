//! The files that a spec names.
//!
//! In what a person writes they may be relative to the spec's own directory. Control runs
//! elsewhere, so a spec on its way there has absolute names only.

use std::path::{Path, PathBuf};

use super::{Loaded, Mark, RuleBody, SchemaSource, Spec, Upstream, Validate, load, secrets};

impl Spec {
    /// Every file that it names, with the path of its field.
    pub fn files_mut(&mut self) -> Vec<(String, &mut String)> {
        let Spec {
            admin,
            listeners,
            upstreams,
            redis,
            authenticators,
            consumers,
            apis,
            protos,
            routes,
            ..
        } = self;
        let mut files = Vec::new();
        if let Some(tls) = &mut admin.tls {
            files.push(("admin.tls.certificate".into(), &mut tls.certificate));
            files.push(("admin.tls.key".into(), &mut tls.key));
            files.extend(tls.client_ca.iter_mut().map(|ca| ("admin.tls.client_ca".into(), ca)));
        }
        let mut parts = secrets::callers(redis.as_mut(), authenticators, consumers);
        for (at, listener) in listeners.iter_mut().enumerate() {
            let certificates = listener.tls.iter_mut().flat_map(|tls| &mut tls.certificates);
            for (n, one) in certificates.enumerate() {
                let path = format!("listeners[{at}].tls.certificates[{n}]");
                files.push((format!("{path}.cert"), &mut one.cert));
                files.push((format!("{path}.key"), &mut one.key));
                if let Some(auth) = &mut one.client_auth {
                    files.push((format!("{path}.client_auth.ca"), &mut auth.ca));
                    let crl = auth.crl.iter_mut();
                    files.extend(crl.map(|crl| (format!("{path}.client_auth.crl"), crl)));
                }
            }
        }
        let outside = |one: &Upstream| one.tls.is_some() || one.credentials.is_some();
        for (at, upstream) in upstreams.iter_mut_if(outside) {
            secrets::credentials(at, upstream.credentials.as_mut(), &mut parts);
            if let Some(tls) = &mut upstream.tls {
                let named = [("ca", &mut tls.ca), ("cert", &mut tls.cert), ("key", &mut tls.key)];
                for (name, file) in named {
                    let path = format!("upstreams[{at}].tls.{name}");
                    files.extend(file.iter_mut().map(|file| (path.clone(), file)));
                }
            }
        }
        for (at, api) in apis.iter_mut().enumerate() {
            files.push((format!("apis[{at}].openapi"), &mut api.openapi));
        }
        for (at, source) in protos.iter_mut().enumerate() {
            let named = [("files", &mut source.files), ("includes", &mut source.includes)];
            for (name, list) in named {
                let path = |n: usize| format!("protos[{at}].{name}[{n}]");
                files.extend(list.iter_mut().enumerate().map(|(n, file)| (path(n), file)));
            }
            let set = source.descriptor_set.iter_mut();
            files.extend(set.map(|set| (format!("protos[{at}].descriptor_set"), set)));
        }
        for (at, route) in routes.iter_mut_if(|one| one.validate.is_some()) {
            if let Some(Validate { body: RuleBody::Own(body), .. }) = &mut route.validate
                && let SchemaSource::File(file) = &mut body.schema
            {
                files.push((format!("routes[{at}].validate.body.schema"), file));
            }
        }
        for (field, part) in parts {
            let named = part.files().into_iter();
            files.extend(named.map(|(name, file)| (format!("{field}{name}"), file)));
        }
        files
    }

    /// The same spec with the relative file names taken from `directory`, an absolute one.
    pub fn rooted(&self, directory: &Path) -> Spec {
        let mut spec = self.clone();
        for (_, file) in spec.files_mut() {
            if let Some(path) = absolute(file, directory) {
                *file = path;
            }
        }
        spec
    }
}

/// The name of `file` from anywhere; `None` when it is so already.
fn absolute(file: &str, directory: &Path) -> Option<String> {
    let path = Path::new(file);
    if path.is_absolute() {
        return None;
    }
    // Without the `./` and `//` that people write. `..` stays: symbolic links may lie on the way.
    let clean: PathBuf = directory.join(path).components().collect();
    Some(clean.to_string_lossy().into_owned())
}

/// `text` with the relative file names taken from `directory`, all else as it was written.
///
/// Where the text cannot be changed in place (a name behind an alias or with escapes) the answer is
/// the spec's canonical form.
pub fn rooted_text(text: &str, loaded: &Loaded, directory: &Path) -> String {
    let Some(spec) = &loaded.spec else { return text.into() };
    let rooted = spec.rooted(directory);
    if rooted == *spec {
        return text.into();
    }
    let mut edits = Vec::new();
    for (field, file) in spec.clone().files_mut() {
        let Some(path) = absolute(file, directory) else { continue };
        // JSON's quoting is YAML's too.
        let Ok(quoted) = serde_json::to_string(&path) else { continue };
        if let Some(start) = offset(text, loaded.places.get(&field))
            && let Some(length) = written(text.get(start..).unwrap_or_default(), file)
        {
            edits.push((start, length, quoted));
        }
    }
    edits.sort_unstable();
    edits.dedup();
    let mut changed = text.to_owned();
    for (start, length, quoted) in edits.into_iter().rev() {
        changed.replace_range(start..start + length, &quoted);
    }
    match load("rooted", &changed).spec {
        Some(spec) if spec == rooted => changed,
        _ => serde_json::to_string_pretty(&rooted).unwrap_or_else(|_| text.into()),
    }
}

/// Bytes that `value` takes at the beginning of `text`.
pub(super) fn written(text: &str, value: &str) -> Option<usize> {
    let forms = [value.to_owned(), format!("\"{value}\""), format!("'{value}'")];
    forms.iter().find(|form| text.starts_with(form.as_str())).map(String::len)
}

/// Where `mark` is in `text`, in bytes.
pub(super) fn offset(text: &str, mark: Mark) -> Option<usize> {
    let mut start = 0;
    let mut lines = text.split_inclusive('\n');
    for _ in 1..mark.line {
        start += lines.next()?.len();
    }
    let line = lines.next()?;
    let column = mark.column.checked_sub(1)?;
    Some(start + line.char_indices().nth(column)?.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = "version: 1
admin: {tls: {certificate: admin.pem, key: admin.key, client_ca: admin-ca.pem}}
listeners:
  - name: https  # ü
    listen: ':8443'
    tls:
      certificates:
        - {cert: certs/a.pem, key: \"certs/a.key\"}   # plain and quoted
        - {cert: 'certs/b.pem', key: /etc/b.key, client_auth: {mode: request, ca: ./ca.pem, crl: c.crl}}
upstreams: [{name: a, targets: ['a:1'], tls: {ca: ca.pem, cert: up.pem, key: up.key}}]
routes: [{name: r, upstream: a}]
";

    #[test]
    fn names_become_absolute_and_the_rest_stays_as_written() {
        let loaded = load("t.yaml", SPEC);
        assert_eq!(loaded.problems, []);
        let text = rooted_text(SPEC, &loaded, Path::new("/srv/gw"));
        let expected = SPEC
            .replace("certificate: admin.pem", "certificate: \"/srv/gw/admin.pem\"")
            .replace("key: admin.key", "key: \"/srv/gw/admin.key\"")
            .replace("client_ca: admin-ca.pem", "client_ca: \"/srv/gw/admin-ca.pem\"")
            .replace("cert: certs/a.pem", "cert: \"/srv/gw/certs/a.pem\"")
            .replace("key: \"certs/a.key\"", "key: \"/srv/gw/certs/a.key\"")
            .replace("'certs/b.pem'", "\"/srv/gw/certs/b.pem\"")
            .replace("ca: ./ca.pem", "ca: \"/srv/gw/ca.pem\"")
            .replace("crl: c.crl", "crl: \"/srv/gw/c.crl\"")
            .replace("{ca: ca.pem", "{ca: \"/srv/gw/ca.pem\"")
            .replace("cert: up.pem", "cert: \"/srv/gw/up.pem\"")
            .replace("key: up.key", "key: \"/srv/gw/up.key\"");
        assert_eq!(text, expected);
        let again = load("t.yaml", &text);
        assert_eq!(rooted_text(&text, &again, Path::new("/elsewhere")), text);
        let spec = loaded.spec.expect("loads");
        assert_eq!(again.spec, Some(spec.rooted(Path::new("/srv/gw"))));
    }

    #[test]
    fn what_cannot_be_changed_in_place_becomes_canonical() {
        let text = SPEC.replace("\"certs/a.key\"", "\"certs\\/a.key\"");
        let loaded = load("t.yaml", &text);
        let rooted = rooted_text(&text, &loaded, Path::new("/srv/gw"));
        let expected = loaded.spec.expect("loads").rooted(Path::new("/srv/gw"));
        assert!(rooted.starts_with('{'), "{rooted}");
        assert_eq!(load("t.yaml", &rooted).spec, Some(expected));
    }
}
