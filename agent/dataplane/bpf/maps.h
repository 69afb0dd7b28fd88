/* The maps all programs of the gateway share. */
#ifndef ISTHMUS_MAPS_H
#define ISTHMUS_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "layout.h"

#define HASH(map_name, key_type, value_type, entries)   \
	struct {                                        \
		__uint(type, BPF_MAP_TYPE_HASH);        \
		__uint(max_entries, entries);           \
		__type(key, key_type);                  \
		__type(value, value_type);              \
	} map_name SEC(".maps")

#define COUNTERS(map_name, value_type, entries)         \
	struct {                                        \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);\
		__uint(max_entries, entries);           \
		__type(key, __u32);                     \
		__type(value, value_type);              \
	} map_name SEC(".maps")

HASH(tunnels4, struct tunnel4_key, struct tunnel, MOST_TUNNELS);
HASH(tunnels6, struct tunnel6_key, struct tunnel, MOST_TUNNELS);
HASH(channels4, struct channel4_key, struct channel, MOST_CHANNELS);
HASH(channels6, struct channel6_key, struct channel, MOST_CHANNELS);
HASH(groups4, __be32, __u8, MOST_CHANNELS);              /* any-source interest: new sources go to the socket */
HASH(groups6, struct group6_key, __u8, MOST_CHANNELS);
HASH(ports, __u32, struct port, MOST_PORTS);             /* by interface index */
HASH(stations, __u32, struct port, MOST_PORTS);          /* of the uplinks, by interface index */

COUNTERS(channel_counters, struct traffic, 2 * MOST_CHANNELS);
COUNTERS(tunnel_counters, struct traffic, MOST_TUNNELS);
COUNTERS(refused, __u64, REFUSALS);
COUNTERS(exceptions, __u64, EXCEPTIONS);

/* One outgoing interface: no copy is made. Keyed by interface index. */
struct {
	__uint(type, BPF_MAP_TYPE_DEVMAP_HASH);
	__uint(max_entries, MOST_PORTS);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct bpf_devmap_val));
} single_ports SEC(".maps");

struct outgoing {
	__uint(type, BPF_MAP_TYPE_DEVMAP);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct bpf_devmap_val));
};

/* Combinations of outgoing interfaces, each made once: putting one in takes milliseconds, naming it does not. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY_OF_MAPS);
	__uint(max_entries, MOST_SETS);
	__type(key, __u32);
	__array(values, struct outgoing);
} sets SEC(".maps");

/* The same for TC, which copies to one interface after the other. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_SETS);
	__type(key, __u32);
	__type(value, struct interface_list);
} set_interfaces SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CPUMAP);
	__uint(max_entries, 1); /* who loads it says how many processors there may be: before Linux 6.6 more are an error */
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(struct bpf_cpumap_val));
} receive_cpus SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct settings);
} settings SEC(".maps");

/* What the filters of clsact call: entry 0 is gateway_tc. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} tc_programs SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} events SEC(".maps");

#endif
