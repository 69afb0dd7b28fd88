/* The maps of the relay. Those the agent fills by the thousand are mapped into its memory. */
#ifndef ISTHMUS_RELAY_MAPS_H
#define ISTHMUS_RELAY_MAPS_H

#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "relay_layout.h"

#define MAP(map_name, map_type, key_type, value_type, entries, flags) \
	struct {                                        \
		__uint(type, map_type);                 \
		__uint(max_entries, entries);           \
		__uint(map_flags, flags);               \
		__type(key, key_type);                  \
		__type(value, value_type);              \
	} map_name SEC(".maps")

#define SHARED(map_name, value_type, entries) \
	MAP(map_name, BPF_MAP_TYPE_ARRAY, __u32, value_type, entries, BPF_F_MMAPABLE)
#define COUNTERS(map_name, value_type, entries) \
	MAP(map_name, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, value_type, entries, 0)

MAP(channels4, BPF_MAP_TYPE_HASH, struct channel4_key, struct channel, MOST_CHANNELS, BPF_F_NO_PREALLOC);
MAP(channels6, BPF_MAP_TYPE_HASH, struct channel6_key, struct channel, MOST_CHANNELS, BPF_F_NO_PREALLOC);

SHARED(lists, struct list, MOST_LISTS);
SHARED(members, struct member, MOST_MEMBERS);
SHARED(tunnels, struct tunnel, MOST_TUNNELS);
SHARED(adjacencies, struct adjacency, MOST_ADJACENCIES);

COUNTERS(channel_counters, struct traffic, MOST_CHANNELS);
COUNTERS(tunnel_losses, struct losses, MOST_TUNNELS);
COUNTERS(lost, __u64, 1);              /* whether it is worth reading tunnel_losses */
COUNTERS(refused, __u64, REFUSALS);

MAP(settings, BPF_MAP_TYPE_ARRAY, __u32, struct settings, 1, 0);
MAP(captures, BPF_MAP_TYPE_ARRAY, __u32, __u32, 8, 0); /* interface of each capture program */

/* Number of the last packet that was fanned out: the identification of its outer IPv4 headers. */
MAP(identification, BPF_MAP_TYPE_ARRAY, __u32, __u32, 1, 0);

struct scratch {
	__u8 octets[512];
};
COUNTERS(scratches, struct scratch, 1);

/* For clsact filters: it empties itself when the agent is gone, and the filter does nothing any more. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 1);
	__uint(key_size, sizeof(__u32));
	__uint(value_size, sizeof(__u32));
} tc_programs SEC(".maps");

#endif
