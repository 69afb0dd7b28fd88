/* Where packets end: counted by interface and flow, checked on demand, and dropped. Attached to XDP for engines that
 * send frames, to TC for those that send socket buffers: each the cheaper for what it gets. */
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "payload.h"

#define IPV4_HEADERS (14 + 20 + 8)
#define IPV6_HEADERS (14 + 40 + 8)
#define FINE 32        /* steps of each power of two, so that a time is known to 3 % */
#define TIMES (40 * FINE)

struct tally {
	__u64 packets;
	__u64 next;      /* sequence expected */
	__u64 gaps;      /* times the sequence jumped ahead */
	__u64 missing;   /* packets jumped over */
	__u64 backwards; /* packets behind the one expected: twice, or too late */
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, MOST_SINKS);
	__type(key, __u32);   /* interface index */
	__type(value, __u32); /* number of the sink */
} sinks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_SINKS * MOST_FLOWS);
	__type(key, __u32);
	__type(value, struct tally);
} tallies SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, TIMES);
	__type(key, __u32);
	__type(value, __u64);
} times SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} datagrams SEC(".maps"); /* of the relay: AMT data messages */

static __always_inline void note_time(__u64 made)
{
	__u64 passed = bpf_ktime_get_ns() - made, *count;
	__u32 power = 0, index;

	/* Position of the highest bit; below it five more bits choose the step. */
#pragma unroll
	for (int shift = 32; shift; shift /= 2)
		if (passed >> (power + shift))
			power += shift;
	index = power < 5 ? passed : (power - 4) * FINE + (passed >> (power - 5) & (FINE - 1));
	if (index >= TIMES)
		index = TIMES - 1;
	count = bpf_map_lookup_elem(&times, &index);
	if (count)
		*count += 1;
}

static __always_inline struct tally *tally_of(__u32 interface, const struct payload *payload)
{
	__u32 *sink, index;

	if (payload->mark != MARK || payload->flow >= MOST_FLOWS)
		return 0;
	sink = bpf_map_lookup_elem(&sinks, &interface);
	if (!sink)
		return 0;
	index = *sink * MOST_FLOWS + payload->flow;
	return bpf_map_lookup_elem(&tallies, &index);
}

/* Packets of one flow reach one interface one after the other. */
static __always_inline void check(struct tally *tally, const struct payload *payload, __u32 packets)
{
	__u64 sequence = payload->sequence;

	if (sequence < tally->next) {
		tally->backwards += packets;
	} else {
		if (sequence > tally->next) {
			tally->gaps += 1;
			tally->missing += sequence - tally->next;
		}
		tally->next = sequence + packets;
	}
	note_time(payload->time);
}

static __always_inline int headers(__u16 protocol)
{
	if (protocol == bpf_htons(ETH_P_IP))
		return IPV4_HEADERS;
	return protocol == bpf_htons(ETH_P_IPV6) ? IPV6_HEADERS : 0;
}

static __always_inline int sink_frame(struct xdp_md *context, int checks)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct ethhdr *ethernet = data;
	struct payload *payload;
	struct tally *tally;
	int skipped;

	if ((void *)(ethernet + 1) > end || !(ethernet->h_dest[0] & 1))
		return XDP_PASS;
	skipped = headers(ethernet->h_proto);
	if (!skipped)
		return XDP_PASS;
	payload = data + skipped;
	if ((void *)(payload + 1) > end)
		return XDP_PASS;
	tally = tally_of(context->ingress_ifindex, payload);
	if (!tally)
		return XDP_PASS;
	if (checks)
		check(tally, payload, 1);
	__sync_fetch_and_add(&tally->packets, 1);
	return XDP_DROP;
}

SEC("xdp")
int sink_xdp(struct xdp_md *context)
{
	return sink_frame(context, 0);
}

SEC("xdp")
int sink_xdp_checked(struct xdp_md *context)
{
	return sink_frame(context, 1);
}

/* A train of datagrams, not cut into packets yet, has consecutive packets of one flow. */
static __always_inline int sink_buffer(struct __sk_buff *buffer, int checks)
{
	struct payload payload;
	struct tally *tally;
	__u32 packets = buffer->gso_segs ? buffer->gso_segs : 1;
	int skipped = headers(buffer->protocol);

	if (!skipped || bpf_skb_load_bytes(buffer, skipped, &payload, sizeof(payload)))
		return TC_ACT_OK;
	tally = tally_of(buffer->ifindex, &payload);
	if (!tally)
		return TC_ACT_OK;
	if (checks)
		check(tally, &payload, packets);
	__sync_fetch_and_add(&tally->packets, packets);
	return TC_ACT_SHOT;
}

SEC("tc")
int sink_tc(struct __sk_buff *buffer)
{
	return sink_buffer(buffer, 0);
}

SEC("tc")
int sink_tc_checked(struct __sk_buff *buffer)
{
	return sink_buffer(buffer, 1);
}

/* Tunnel packets of a relay: UDP over IPv4 from port 2268, AMT type 6. */
SEC("tc")
int sink_tunnel(struct __sk_buff *buffer)
{
	struct { __be16 source, destination, length, check; __u8 type; } __attribute__((packed)) udp;
	__u32 zero = 0;
	__u64 *count = bpf_map_lookup_elem(&datagrams, &zero);

	if (!count || buffer->protocol != bpf_htons(ETH_P_IP) ||
	    bpf_skb_load_bytes(buffer, 14 + 20, &udp, sizeof(udp)) || udp.source != bpf_htons(2268) || udp.type != 6)
		return TC_ACT_OK;
	*count += buffer->gso_segs ? buffer->gso_segs : 1;
	return TC_ACT_SHOT;
}

const char licence[] SEC("license") = "GPL";
