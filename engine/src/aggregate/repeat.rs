//! Calls that are made for each item of a list, or for many of them at once.

use std::borrow::Cow;
use std::collections::HashMap;

use super::outcome::{Failure, Part, Why};
use super::plan::{Batch, Call, Mode, Repeat};
use super::run::{Answer, Running};
use super::view::View;
use crate::payload::json::Json;

/// The items of a call, and which of them each of its units is for.
type Units<'a> = (Vec<Json<'a>>, Vec<Vec<usize>>);

/// # Errors
/// There is no list, or too long a one.
pub(super) fn units<'a>(repeat: &Repeat, view: &View<'_, 'a>) -> Result<Units<'a>, Why> {
    let list = match view.value(&repeat.list) {
        None | Some(Json::Null) => return Ok((Vec::new(), Vec::new())),
        Some(Json::Array(list)) => list,
        Some(_) => return Err(Why::NotAList),
    };
    if list.len() > repeat.max_items {
        return Err(Why::TooManyItems);
    }
    let items: Vec<Json<'a>> = match repeat.key.is_whole() {
        true => list,
        false => list.into_iter().map(|item| repeat.key.take(item).unwrap_or_default()).collect(),
    };
    // For what is null there is nothing to ask.
    let there = items.iter().enumerate().filter(|(_, item)| **item != Json::Null);
    let units = match &repeat.batch {
        None => there.map(|(place, _)| vec![place]).collect(),
        Some(batch) => {
            let mut seen = HashMap::new();
            let first: Vec<usize> = there
                .filter(|(place, item)| seen.insert(item.to_text(), *place).is_none())
                .map(|(place, _)| place)
                .collect();
            first.chunks(batch.size.max(1)).map(<[usize]>::to_vec).collect()
        }
    };
    Ok((items, units))
}

/// What a unit is for, and its place.
pub(super) fn item<'a>(
    call: &Call,
    running: &Running<'a>,
    unit: usize,
) -> Option<(usize, Json<'a>)> {
    let repeat = call.repeat.as_ref()?;
    let places = running.units.get(unit)?;
    let items = places.iter().filter_map(|place| running.items.get(*place).cloned());
    match repeat.batch {
        Some(_) => Some((unit, Json::Array(items.collect()))),
        None => items.into_iter().next().map(|item| (places.first().copied().unwrap_or(0), item)),
    }
}

/// What a call was answered, from what its units were.
///
/// # Errors
/// It failed, and for which item.
pub(super) fn collect<'a>(
    call: &Call,
    running: Running<'a>,
    left_bytes: &mut usize,
) -> Result<Part<'a>, (Failure, Option<usize>)> {
    let Running { items, units, results, .. } = running;
    let Some(repeat) = &call.repeat else {
        return match results.into_iter().next().flatten() {
            Some(Ok(Answer { status, fields, body })) => {
                Ok(Part { status, fields, body, ..Part::default() })
            }
            Some(Err(failure)) => Err((failure, None)),
            None => Err((Failure::new(Why::Late, 504), None)),
        };
    };
    let mut part = Part { status: 200, ..Part::default() };
    let mut found: Vec<Json<'a>> = items.iter().map(|_| Json::Null).collect();
    let mut elements = Vec::new();
    let count = units.len();
    for (places, result) in units.iter().zip(results) {
        let first = places.first().copied().unwrap_or(0);
        match result.unwrap_or_else(|| Err(Failure::new(Why::Late, 504))) {
            Ok(answer) => {
                part.status = answer.status;
                part.fields.extend(answer.fields);
                match (&repeat.batch, answer.body) {
                    (None, body) => {
                        if let Some(place) = found.get_mut(first) {
                            *place = body;
                        }
                    }
                    (Some(_), Json::Array(list)) => elements.extend(list),
                    (Some(_), Json::Null) => {}
                    (Some(_), _) => part.items.push((first, Failure::new(Why::NotAList, 502))),
                }
            }
            Err(failure) => part.items.push((first, failure)),
        }
    }
    // With nothing at all, or where all have to be there, the call has failed.
    let fails = part.items.len() == count || call.mode == Mode::Required;
    if fails && let Some((item, failure)) = part.items.first() {
        return Err((failure.clone(), Some(*item)));
    }
    if let Some(batch) = &repeat.batch {
        assign(batch, &items, &elements, &mut found, left_bytes)
            .map_err(|failure| (failure, None))?;
    }
    part.body = Json::Array(found);
    Ok(part)
}

/// Gives each item the element that names it.
fn assign<'a>(
    batch: &Batch,
    items: &[Json<'a>],
    elements: &[Json<'a>],
    found: &mut [Json<'a>],
    left_bytes: &mut usize,
) -> Result<(), Failure> {
    let index = index(elements, &batch.by);
    for (item, place) in items.iter().zip(found) {
        let Some(element) = key(item).and_then(|key| index.get(&key)?.first().copied()) else {
            continue;
        };
        // Elements are copied: of a large one that many items name there would be many.
        let too_large = || Failure::new(Why::TooLarge, 502);
        *left_bytes = left_bytes.checked_sub(element.weight()).ok_or_else(too_large)?;
        *place = element.clone();
    }
    Ok(())
}

/// Elements by what names them, each in its order.
pub(super) fn index<'j, 'a>(
    elements: &'j [Json<'a>],
    by: &super::dotted::Dotted,
) -> HashMap<Cow<'j, str>, Vec<&'j Json<'a>>> {
    let mut index: HashMap<Cow<'j, str>, Vec<&'j Json<'a>>> = HashMap::new();
    for element in elements {
        if let Some(key) = by.find(element).and_then(key) {
            index.entry(key).or_default().push(element);
        }
    }
    index
}

/// What names something: a number and its text are the same, null and what is no scalar name nothing.
pub(super) fn key<'j>(value: &'j Json<'_>) -> Option<Cow<'j, str>> {
    match value {
        Json::Number(_) | Json::String(_) | Json::Bool(_) => Some(value.to_text()),
        Json::Null | Json::Array(_) | Json::Object(_) => None,
    }
}
