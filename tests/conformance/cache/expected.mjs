// Cases that do not pass, and why.
export const EXPECTED = {}
