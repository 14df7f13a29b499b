//! Lists of a spec that may be very long.

use std::borrow::Cow;
use std::ops::Deref;
use std::sync::Arc;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A list that costs nothing to clone, as specs differ in little from one revision to the next: who
/// changes it copies the pointers, and only the elements that change.
#[derive(Clone, Debug)]
pub struct List<T>(Arc<Vec<Arc<T>>>);

impl<T> List<T> {
    /// Whether both are the same memory, and so equal.
    pub fn is(&self, other: &List<T>) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    /// Its elements, for who need not know what holds them.
    pub fn plain(&self) -> Vec<&T> {
        self.0.iter().map(|one| &**one).collect()
    }

    /// Its elements, to add, remove or replace some.
    pub fn edit(&mut self) -> &mut Vec<Arc<T>> {
        Arc::make_mut(&mut self.0)
    }
}

impl<T: Clone> List<T> {
    /// The elements that `wanted` says, with their indexes, to change them. Others are not copied.
    pub fn iter_mut_if(
        &mut self,
        wanted: impl Fn(&T) -> bool,
    ) -> impl Iterator<Item = (usize, &mut T)> {
        // Nothing is copied where there is nothing to change.
        let list: &mut [Arc<T>] = match self.0.iter().any(|one| wanted(one)) {
            true => Arc::make_mut(&mut self.0).as_mut_slice(),
            false => &mut [],
        };
        let some = list.iter_mut().enumerate().filter(move |(_, one)| wanted(&***one));
        some.map(|(at, one)| (at, Arc::make_mut(one)))
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        List(Arc::default())
    }
}

impl<T> Deref for List<T> {
    type Target = [Arc<T>];

    fn deref(&self) -> &[Arc<T>] {
        &self.0
    }
}

impl<T: PartialEq> PartialEq for List<T> {
    fn eq(&self, other: &List<T>) -> bool {
        let same = |(one, two): (&Arc<T>, &Arc<T>)| Arc::ptr_eq(one, two) || one == two;
        self.is(other) || (self.len() == other.len() && self.iter().zip(other.iter()).all(same))
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(list: Vec<T>) -> List<T> {
        list.into_iter().collect()
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(list: I) -> List<T> {
        List(Arc::new(list.into_iter().map(Arc::new).collect()))
    }
}

impl<'a, T> IntoIterator for &'a List<T> {
    type Item = &'a Arc<T>;
    type IntoIter = std::slice::Iter<'a, Arc<T>>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter()
    }
}

impl<T: Serialize> Serialize for List<T> {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_seq(self.iter().map(|one| &**one))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for List<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<List<T>, D::Error> {
        Vec::deserialize(from).map(List::from)
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn inline_schema() -> bool {
        Vec::<T>::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        Vec::<T>::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        Vec::<T>::schema_id()
    }

    fn json_schema(g: &mut SchemaGenerator) -> Schema {
        Vec::<T>::json_schema(g)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_copied() {
        let old: List<String> = ["a", "b", "c"].map(String::from).into_iter().collect();
        let mut new = old.clone();
        assert!(new.is(&old));
        assert_eq!(new.iter_mut_if(|one| one == "x").count(), 0);
        assert!(new.is(&old), "nothing was to change");
        new.iter_mut_if(|one| one == "b").for_each(|(at, one)| *one = format!("b{at}"));
        assert_eq!(*old[1], "b");
        assert_eq!(*new[1], "b1");
        assert!(Arc::ptr_eq(&old[0], &new[0]) && !Arc::ptr_eq(&old[1], &new[1]));
        assert!(new != old && !new.is(&old));
        new.edit()[1] = Arc::clone(&old[1]);
        assert!(new == old && !new.is(&old));
    }

    #[test]
    fn it_looks_like_any_list() {
        let list: List<u8> = vec![1, 2].into();
        assert_eq!(serde_json::to_string(&list).unwrap(), "[1,2]");
        assert_eq!(serde_json::from_str::<List<u8>>("[1,2]").unwrap(), list);
    }
}
