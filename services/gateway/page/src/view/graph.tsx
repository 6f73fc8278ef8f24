// A pipeline's stages as boxes from left to right, one line per proof where the edges allow it.

import type { GraphNode, PipelineDetail } from "../api";
import { links } from "../route";

const WIDE = 152;
const TALL = 54;
const GAP_X = 44;
const GAP_Y = 18;

export function Graph({ graph }: { graph: PipelineDetail["graph"] }) {
  const { nodes, edges } = graph;
  const column = new Map<string, number>();
  const depth = (id: string, seen: string[]): number => {
    if (column.has(id)) return column.get(id)!;
    const before = edges.filter((edge) => edge.to === id && !seen.includes(edge.from));
    const at = Math.max(0, ...before.map((edge) => depth(edge.from, [...seen, id]) + 1));
    column.set(id, at);
    return at;
  };
  for (const node of nodes) depth(node.id, []);
  const proofs = [...new Set(nodes.map((node) => node.proof))];
  const at = new Map<string, { x: number; y: number }>();
  const filled = new Map<string, number>();
  for (const node of nodes) {
    const line = proofs.indexOf(node.proof);
    const cell = `${line}/${column.get(node.id)}`;
    const stacked = filled.get(cell) ?? 0;
    filled.set(cell, stacked + 1);
    at.set(node.id, { x: column.get(node.id)! * (WIDE + GAP_X) + 1, y: (line + stacked) * (TALL + GAP_Y) + 1 });
  }
  const width = Math.max(WIDE, ...[...at.values()].map(({ x }) => x + WIDE)) + 2;
  const height = Math.max(TALL, ...[...at.values()].map(({ y }) => y + TALL)) + 2;
  return (
    <div class="scroll" tabIndex={0} role="group" aria-label="Graph of the stages">
      <svg class="graph" width={width} height={height} viewBox={`0 0 ${width} ${height}`} role="group" aria-label="Stages and what follows what">
        {edges.map((edge) => {
          const [from, to] = [at.get(edge.from), at.get(edge.to)];
          if (!from || !to) return null;
          const [x1, y1, x2, y2] = [from.x + WIDE, from.y + TALL / 2, to.x - 5, to.y + TALL / 2];
          return (
            <g key={`${edge.from} ${edge.to}`}>
              <path d={`M${x1} ${y1}C${x1 + 22} ${y1} ${x2 - 22} ${y2} ${x2} ${y2}`} class="edge" />
              <path d={`M${x2 + 5} ${y2}l-6 -3.5v7z`} class="edge-head" />
            </g>
          );
        })}
        {nodes.map((node) => (
          <Node key={node.id} node={node} {...at.get(node.id)!} />
        ))}
      </svg>
    </div>
  );
}

function Node({ node, x, y }: { node: GraphNode; x: number; y: number }) {
  return (
    <a href={links.zkvm(node.zkvm)}>
      <g transform={`translate(${x} ${y})`} class="node">
        <rect width={WIDE} height={TALL} rx="4" />
        <text x="10" y="22" class="node-name">{node.stage}</text>
        <text x={WIDE - 10} y="22" text-anchor="end" class="node-kind">{node.kind}{node.arity ? ` of ${node.arity}` : ""}</text>
        <text x="10" y="41" class="node-kind">{node.proof} on {node.zkvm}</text>
      </g>
    </a>
  );
}
