//! The frames that gRPC's messages come in (`PROTOCOL-HTTP2.md`): a flag, a length, the message.

/// Bytes of a frame's head.
pub const HEAD: usize = 5;

/// Appends a frame; `write` appends its message.
pub fn write<E>(
    out: &mut Vec<u8>,
    write: impl FnOnce(&mut Vec<u8>) -> Result<(), E>,
) -> Result<(), E> {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    write(out)?;
    let len = (out.len() - start - HEAD) as u32;
    if let Some(head) = out.get_mut(start + 1..start + HEAD) {
        head.copy_from_slice(&len.to_be_bytes());
    }
    Ok(())
}

/// Why the bytes of a call are no messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadFrame {
    /// Compression was not offered.
    Compressed,
    TooLarge,
    /// They end in the middle of one.
    Cut,
}

/// The messages of a stream, one after the other.
#[derive(Debug)]
pub struct Frames {
    carry: Vec<u8>,
    most: usize,
}

impl Frames {
    /// `most`: bytes of the largest message.
    pub fn new(most: usize) -> Frames {
        Frames { carry: Vec::new(), most }
    }

    /// Takes a piece, and hands out each message that is whole by now.
    ///
    /// # Errors
    /// What is no frame, or the first error of `each`.
    pub fn feed<E: From<BadFrame>>(
        &mut self,
        data: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), E>,
    ) -> Result<(), E> {
        let joined;
        let mut left = if self.carry.is_empty() {
            data
        } else {
            self.carry.extend_from_slice(data);
            joined = std::mem::take(&mut self.carry);
            &joined
        };
        while let Some((message, rest)) = next(left, self.most)? {
            each(message)?;
            left = rest;
        }
        self.carry = left.to_vec();
        Ok(())
    }

    /// Whether the stream may end here.
    pub fn is_between(&self) -> bool {
        self.carry.is_empty()
    }
}

/// A message, and what is behind it.
type Taken<'a> = (&'a [u8], &'a [u8]);

/// The first message and what is behind it; `None`: it is not whole yet.
///
/// # Errors
/// It cannot be taken.
pub fn next(bytes: &[u8], most: usize) -> Result<Option<Taken<'_>>, BadFrame> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let [flag, length @ ..] = *head;
    if flag & 1 != 0 {
        return Err(BadFrame::Compressed);
    }
    let length = u32::from_be_bytes(length) as usize;
    if length > most {
        return Err(BadFrame::TooLarge);
    }
    Ok(if rest.len() < length { None } else { Some(rest.split_at(length)) })
}

/// The only message of a call.
///
/// # Errors
/// There is none, or more than one.
pub fn only(bytes: &[u8], most: usize) -> Result<&[u8], BadFrame> {
    match next(bytes, most)? {
        Some((message, [])) => Ok(message),
        _ => Err(BadFrame::Cut),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_out_as_they_went_in() {
        let mut bytes = Vec::new();
        for message in [&b"one"[..], b"", &[7; 300]] {
            write(&mut bytes, |out| {
                out.extend_from_slice(message);
                Ok::<(), BadFrame>(())
            })
            .unwrap();
        }
        for size in [1, 2, 5, 8, 1000] {
            let mut frames = Frames::new(300);
            let mut out: Vec<Vec<u8>> = Vec::new();
            for piece in bytes.chunks(size) {
                frames
                    .feed(piece, |message| {
                        out.push(message.to_vec());
                        Ok::<(), BadFrame>(())
                    })
                    .unwrap();
            }
            assert!(frames.is_between());
            assert_eq!(out, [b"one".to_vec(), vec![], vec![7; 300]]);
        }
        let mut frames = Frames::new(10);
        let fed = frames.feed(&bytes, |_| Ok::<(), BadFrame>(()));
        assert_eq!(fed, Err(BadFrame::TooLarge));
        assert_eq!(only(&bytes, 1000), Err(BadFrame::Cut));
        assert_eq!(only(&bytes[..8], 1000), Ok(&b"one"[..]));
        assert_eq!(next(&[1, 0, 0, 0, 0], 9), Err(BadFrame::Compressed));
    }
}
