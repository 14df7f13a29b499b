//! Descriptors of gRPC services, out of .proto files, descriptor sets, and what servers tell.

mod bundled;
pub mod reflection;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use contract::encode::MAX_DESCRIPTORS;
use contract::snapshot::Snapshot;
use prost_reflect::DescriptorPool;
use protox::Compiler;
use protox::file::{ChainFileResolver, GoogleFileResolver, IncludeFileResolver};

use super::{Load, Material, file};
use crate::spec::{ProtoSource, Severity, Spec};

/// Descriptors by what they were made from.
pub(super) type Protos = BTreeMap<String, Arc<Compiled>>;

/// A set of descriptors.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compiled {
    /// A `google.protobuf.FileDescriptorSet`, whole.
    pub descriptors: Vec<u8>,
    /// All files that were read.
    pub files: Vec<String>,
}

impl Material {
    /// The descriptors of a source; `None`: they are not known (yet).
    pub fn proto(&self, source: &ProtoSource) -> Option<&[u8]> {
        self.protos.get(&key(source)).map(|compiled| compiled.descriptors.as_slice())
    }

    /// Whether a server has still to tell the descriptors.
    pub fn is_pending_proto(&self, source: &ProtoSource) -> bool {
        self.pending.contains(&key(source))
    }

    /// What of `snapshot`, compiled from `spec`, came from descriptors.
    pub(super) fn recover_protos(&mut self, spec: &Spec, snapshot: &Snapshot) {
        for (source, flat) in spec.protos.iter().zip(&snapshot.protos) {
            let compiled = Compiled { descriptors: flat.descriptors.clone(), files: Vec::new() };
            if source.name == flat.name {
                self.protos.insert(key(source), Arc::new(compiled));
            }
        }
    }
}

/// What descriptors are made from.
fn key(source: &ProtoSource) -> String {
    let ProtoSource { name: _, workspace: _, files, includes, descriptor_set, reflection } = source;
    serde_json::json!([files, includes, descriptor_set, reflection]).to_string()
}

impl Load<'_> {
    /// Reads every set of descriptors.
    pub(super) fn protos(&mut self, spec: &Spec) {
        for (at, source) in spec.protos.iter().enumerate() {
            let key = key(source);
            if self.material.protos.contains_key(&key) {
                continue;
            }
            let (field, value, made) = if let Some(set) = &source.descriptor_set {
                ("descriptor_set", set.as_str(), descriptor_set(set))
            } else if !source.files.is_empty() {
                ("files", source.files.first().map_or("", String::as_str), compile(source))
            } else if let Some(told) = &source.reflection {
                match reflection::said(spec, &told.upstream) {
                    Some(set) => {
                        let made = whole(&set)
                            .map(|descriptors| Compiled { descriptors, files: Vec::new() });
                        ("reflection", told.upstream.as_str(), made)
                    }
                    // Nothing is known yet. What was known to the last control process will do.
                    None => {
                        match self.before.and_then(|before| before.protos.get(&key)) {
                            Some(before) => {
                                self.material.protos.insert(key, Arc::clone(before));
                            }
                            None => {
                                self.material.pending.insert(key);
                            }
                        }
                        continue;
                    }
                }
            } else {
                continue;
            };
            match made {
                Ok(compiled) => {
                    self.material.protos.insert(key, Arc::new(compiled));
                }
                Err(message) => {
                    let field = format!("protos[{at}].{field}");
                    self.fault(Severity::Error, "bad-proto", field, value, message);
                    if let Some(before) = self.before.and_then(|before| before.protos.get(&key)) {
                        self.material.protos.insert(key, Arc::clone(before));
                    }
                }
            }
        }
    }
}

/// Compiles .proto files, with what they import.
fn compile(source: &ProtoSource) -> Result<Compiled, String> {
    let mut resolver = ChainFileResolver::new();
    let parents = source.files.iter().filter_map(|file| Path::new(file).parent());
    let mut includes: Vec<&Path> = source.includes.iter().map(Path::new).collect();
    if includes.is_empty() {
        // Each once, in the order of the files.
        let mut seen = BTreeSet::new();
        includes.extend(parents.filter(|parent| seen.insert(*parent)));
    }
    for include in &includes {
        resolver.add(IncludeFileResolver::new(include.to_path_buf()));
    }
    resolver.add(GoogleFileResolver::new());
    resolver.add(bundled::Bundled);
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(false);
    for one in &source.files {
        // Says better what is wrong with a name, and bounds what is read.
        file::read(one, MAX_PROTO)?;
        compiler.open_file(one).map_err(|error| told(&error))?;
    }
    let files = compiler.files().filter_map(|file| Some(file.path()?.to_str()?.to_owned()));
    let mut files: Vec<String> = files.collect();
    files.sort_unstable();
    Ok(Compiled { descriptors: whole(&compiler.encode_file_descriptor_set())?, files })
}

/// What is wrong, with its place: the compiler's `Debug` has file, line and column as far as these are
/// known.
fn told(error: &protox::Error) -> String {
    let text = format!("{error:?}");
    match error.file() {
        Some(file) if !text.contains(file) => format!("{file}: {text}"),
        _ => text,
    }
}

/// Largest .proto file, in bytes.
const MAX_PROTO: u64 = 4 << 20;

fn descriptor_set(name: &str) -> Result<Compiled, String> {
    let (bytes, _) = file::read(name, MAX_DESCRIPTORS as u64)?;
    let descriptors = whole(&bytes).map_err(|problem| {
        format!(
            "{name} is no FileDescriptorSet with all that it imports (protoc --include_imports \
             --descriptor_set_out, or buf build -o): {problem}"
        )
    })?;
    Ok(Compiled { descriptors, files: Vec::new() })
}

/// The same set, with the types that details of a status usually have.
///
/// # Errors
/// It does not hang together, or is too large.
pub fn whole(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let pool = DescriptorPool::decode(bytes).map_err(|error| error.to_string())?;
    let descriptors = match pool.get_file_by_name(bundled::DETAILS).is_some()
        || pool.get_message_by_name("google.rpc.BadRequest").is_some()
    {
        true => bytes.to_vec(),
        false => with_details(pool).unwrap_or_else(|| bytes.to_vec()),
    };
    match descriptors.len() <= MAX_DESCRIPTORS {
        true => Ok(descriptors),
        false => Err(format!("the descriptors have more than {MAX_DESCRIPTORS} bytes")),
    }
}

/// `None`: the set has names of its own that are in the way.
fn with_details(mut pool: DescriptorPool) -> Option<Vec<u8>> {
    let mut resolver = ChainFileResolver::new();
    resolver.add(GoogleFileResolver::new());
    resolver.add(bundled::Bundled);
    let mut compiler = Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).open_file(bundled::DETAILS).ok()?;
    for file in compiler.file_descriptor_set().file {
        if pool.get_file_by_name(file.name()).is_none() {
            pool.add_file_descriptor_proto(file).ok()?;
        }
    }
    Some(pool.encode_to_vec())
}

#[cfg(test)]
mod tests;
