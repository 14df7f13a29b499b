use std::fs;
use std::path::PathBuf;

use prost_reflect::DescriptorPool;

use crate::fit::{self, Checked};
use crate::material::Material;

/// A directory that goes with the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Scratch {
        let path =
            std::env::temp_dir().join(format!("sluice-protos-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(path.join("shop")).unwrap();
        Scratch(path)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.0.join(name), text).unwrap();
    }

    fn load(&self, protos: &str, transcode: &str) -> Checked {
        let text = format!(
            "version: 1
listeners: [{{name: web, listen: ':8080'}}]
upstreams: [{{name: shop, targets: ['127.0.0.1:1'], protocol: http2}}]
protos:
{protos}
routes: [{{name: r, upstream: shop, transcode: {transcode}}}]
"
        );
        fit::load("t.yaml", text.as_bytes(), Some(&self.0), |_| Ok(()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const SHOP: &str = r#"syntax = "proto3";
package shop.v1;
import "google/api/annotations.proto";
import "shop/item.proto";
service Catalog {
  rpc GetItem(Item) returns (Item) { option (google.api.http) = { get: "/v1/items/{id}" }; }
}
"#;
const ITEM: &str = "syntax = \"proto3\";\npackage shop.v1;\nmessage Item { string id = 1; }\n";
const TRANSCODE: &str = "{proto: shop, services: [shop.v1.Catalog]}";

fn pool(checked: &Checked) -> DescriptorPool {
    let whole = checked.whole.as_ref().unwrap_or_else(|| panic!("{:?}", checked.problems));
    let snapshot = fit::plain(&whole.spec, &whole.material);
    let route = snapshot.routes[0].transcode.as_ref().unwrap();
    assert_eq!((route.proto, snapshot.protos.len()), (0, 1));
    // What is published can be read back, and made of that again.
    let recovered = Material::recover(&whole.spec, &snapshot);
    let again = fit::plain(&whole.spec, &recovered);
    assert_eq!(again.protos, snapshot.protos);
    DescriptorPool::decode(&*snapshot.protos[0].descriptors).unwrap()
}

#[test]
fn files_are_compiled_with_what_they_import() {
    let scratch = Scratch::new("files");
    scratch.write("shop/shop.proto", SHOP);
    scratch.write("shop/item.proto", ITEM);
    let source = "- {name: shop, files: [shop/shop.proto], includes: [.]}";
    let checked = scratch.load(source, TRANSCODE);
    let pool = pool(&checked);
    assert!(pool.get_service_by_name("shop.v1.Catalog").is_some());
    assert!(pool.get_message_by_name("google.rpc.BadRequest").is_some(), "details are known");
    let material = &checked.whole.as_ref().unwrap().material;
    let files: Vec<&str> = material.more_files().collect();
    assert!(files.iter().any(|file| file.ends_with("shop/item.proto")), "{files:?}");
    // The same as a descriptor set.
    scratch.write("shop.binpb", pool.encode_to_vec());
    let checked = scratch.load("- {name: shop, descriptor_set: shop.binpb}", TRANSCODE);
    assert!(self::pool(&checked).get_service_by_name("shop.v1.Catalog").is_some());
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    let scratch = Scratch::new("wrong");
    let source = "- {name: shop, files: [shop/shop.proto], includes: [.]}";
    let told = |checked: Checked| {
        assert!(checked.whole.is_none());
        let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        problems.join("\n")
    };
    let missing = told(scratch.load(source, TRANSCODE));
    assert!(missing.contains("protos[0].files") && missing.contains("does not exist"), "{missing}");
    scratch.write("shop/shop.proto", SHOP);
    let import = told(scratch.load(source, TRANSCODE));
    assert!(import.contains("shop/shop.proto:4:1: import 'shop/item.proto' not found"), "{import}");
    scratch.write("shop/item.proto", "syntax = \"proto3\";\nmessage Item { strin id = 1; }\n");
    let kind = told(scratch.load(source, TRANSCODE));
    assert!(kind.contains("shop/item.proto:2:16"), "{kind}");
    scratch.write("shop.binpb", b"\xff");
    let set = told(scratch.load("- {name: shop, descriptor_set: shop.binpb}", TRANSCODE));
    assert!(set.contains("is no FileDescriptorSet"), "{set}");
}

#[test]
fn specs_are_checked() {
    let scratch = Scratch::new("specs");
    scratch.write("shop/shop.proto", SHOP);
    scratch.write("shop/item.proto", ITEM);
    let source = "- {name: shop, files: [shop/shop.proto], includes: [.]}";
    for (protos, transcode, expected) in [
        (source, "{proto: shp, services: [a.B]}", "unknown-proto"),
        (source, "{proto: shop, services: []}", "empty-list"),
        (source, "{proto: shop, services: [a], bindings: [{get: /x}]}", "`selector`"),
        (source, "{proto: shop, services: [a], bindings: [{selector: a.B, body: x}]}", "one of"),
        (source, "{proto: shop, services: [a], bindings: [{selector: a, get: x}]}", "bad-path"),
        (source, "{proto: shop, services: [a], unknown_query: perhaps}", "bad-value"),
        (source, "{proto: shop, services: [a], max_request_bytes: 1GiB}", "out-of-range"),
        ("- {name: shop}", TRANSCODE, "missing-field"),
        ("- {name: shop, descriptor_set: a, reflection: {upstream: shop}}", TRANSCODE, "conflict"),
        ("- {name: shop, reflection: {upstream: nobody}}", TRANSCODE, "unknown-upstream"),
    ] {
        let checked = scratch.load(protos, transcode);
        let problems: Vec<String> = checked.problems.iter().map(ToString::to_string).collect();
        let told = problems.join("\n");
        assert!(checked.whole.is_none() && told.contains(expected), "{transcode}: {told}");
    }
}
