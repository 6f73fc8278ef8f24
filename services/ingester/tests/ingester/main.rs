//! An ingester against real nodes, files and submitters. One program: each further one takes half a minute to build.

mod chains;
mod ethereum;
mod file;
mod http;
mod memory;
mod node;
mod nodes;
mod observed;
mod replicas;
mod room;
