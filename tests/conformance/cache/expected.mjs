// Cases that do not pass, and why.
const parts = 'parts of answers are not kept: they are given of whole answers only'
const close = 'needs a cache that serves stale answers unasked (RFC 9111 §4.2.4 does not allow that to one that is connected); that these directives forbid it is tested in engine/src/cache/freshness/tests.rs'
export const EXPECTED = {
  // Required.
  'headers-store-Transfer-Encoding': 'an answer with a nonsensical Transfer-Encoding is refused (502), so there is nothing to keep',
  'stale-close-must-revalidate': close,
  'stale-close-proxy-revalidate': close,
  'stale-close-no-cache': close,
  'stale-close-s-maxage=2': close,
  // Optional.
  'conditional-lm-fresh-no-lm': 'the stored Date is later than the date that is asked for, so it has changed (RFC 9111 §4.3.2)',
  'method-POST': 'only answers to GET are kept',
  'other-authorization-must-revalidate': 'by choice: APIs say must-revalidate of answers that are for one caller; public or s-maxage has to be said',
  'partial-store-partial-complete': parts,
  'partial-store-partial-reuse-partial': parts,
  'partial-store-partial-reuse-partial-absent': parts,
  'partial-store-partial-reuse-partial-byterange': parts,
  'partial-store-partial-reuse-partial-suffix': parts,
  'vary-normalise-lang-select': 'which language an origin would choose is not guessed'
}
