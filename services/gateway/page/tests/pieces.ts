// What pieces.test.mjs tests.
export { EventParser } from "../src/stream";
export { links, ownLink, parse, webLink } from "../src/route";
export { bytes, duration, quantile } from "../src/words";
