// The address of what is shown, in the part of the URL after `#`, so that every page can be linked and opened offline.
// The paths are those of the interface: /pipelines/l1/blocks/12, /provers/sp1-03, /zkvms/sp1, /dead-letters.

export type Route =
  | { page: "overview"; zkvm: string | null }
  | { page: "pipeline"; pipeline: string }
  | { page: "block"; pipeline: string; block: string }
  | { page: "prover"; id: string }
  | { page: "letters" };

export function parse(hash: string): Route {
  const parts = hash.replace(/^#?\/*/, "").split("/").filter(Boolean).map(decode);
  const [room, name, , block] = parts;
  if (room === "pipelines" && name && parts[2] === "blocks" && block) return { page: "block", pipeline: name, block };
  if (room === "pipelines" && name) return { page: "pipeline", pipeline: name };
  if (room === "provers" && name) return { page: "prover", id: name };
  if (room === "dead-letters") return { page: "letters" };
  return { page: "overview", zkvm: room === "zkvms" && name ? name : null };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}

const path = (...parts: (string | number)[]) => "#/" + parts.map((part) => encodeURIComponent(part)).join("/");

export const links = {
  overview: "#/",
  letters: "#/dead-letters",
  pipeline: (name: string) => path("pipelines", name),
  block: (pipeline: string, block: string | number) => path("pipelines", pipeline, "blocks", block),
  prover: (id: string) => path("provers", id),
  zkvm: (name: string) => path("zkvms", name),
};

/** A link that the gateway sent: a path of this page, or nothing. Other addresses are not followed. */
export function ownLink(link: string | null): string | null {
  if (!link || !/^#?\/(?!\/)/.test(link)) return null;
  return "#" + link.replace(/^#/, "");
}

/** A link to another web page that the gateway sent: http and https only, so that no `javascript:` is ever followed. */
export function webLink(link: string | null): string | null {
  return link && /^https?:\/\//i.test(link) ? link : null;
}

/** Moves the path of a link of the gateway, such as /zkvms/sp1, to where this page has it: after the `#`. */
export function settle(): void {
  if (location.pathname !== "/") history.replaceState(null, "", `/#${location.pathname}`);
}

export function go(address: string): void {
  location.hash = address;
}
