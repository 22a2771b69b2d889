//! Integration tests of the edge: real files, processes, databases and sockets.

mod act_config;
