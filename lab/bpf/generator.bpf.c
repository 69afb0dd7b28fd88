/* Makes packets in the kernel: run by BPF_PROG_TEST_RUN with live frames, it fills each frame and sends it out of an
 * interface. Frames come back from where they ended with what was done to them there, so the head is written anew each
 * time; what lies behind it is as the caller gave it. */
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>

#include "payload.h"

#define HEAD 144 /* longest headers, IPv6 in IPv6, and the payload's first octets */
#define LONGEST_HEADERS (HEAD - (int)sizeof(struct payload))
#define LOOKS (1 << 22) /* at the clock while a packet is not due, some tenths of a second */

struct flow {
	__u64 head[HEAD / 8];
	__u16 payload;     /* where it begins */
	__u16 inner_check; /* where the UDP checksum is, 0 when it stays as it is */
	__u16 outer_check;
	__u16 reserved;
	__u32 inner_sum;   /* of what does not change, as in the frame */
	__u32 outer_sum;
};

struct state {
	__u32 interface;
	__u32 flows;
	__u64 interval; /* nanoseconds between packets, 0 for none */
	__u64 due;
	__u64 sent;
	__u64 burst;    /* packets that leave together */
	__u64 first;    /* when the first was made, and the last */
	__u64 last;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_FLOWS);
	__type(key, __u32);
	__type(value, struct flow);
} flows SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct state);
} states SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, MOST_FLOWS);
	__type(key, __u32);
	__type(value, __u64);
} sequences SEC(".maps");

struct waiting {
	__u64 due;
	__u64 now;
};

static long look(__u32 turn, struct waiting *waiting)
{
	waiting->now = bpf_ktime_get_ns();
	return waiting->now >= waiting->due;
}

/* Time lost to other programs is not made up for: that would be a burst beyond the rate. */
static __always_inline void pace(struct state *state)
{
	struct waiting waiting = { .due = state->due };

	if (!state->interval || state->sent % (state->burst | !state->burst))
		return;
	bpf_loop(LOOKS, look, &waiting, 0);
	if (waiting.now > state->due + state->interval * state->burst)
		state->due = waiting.now;
	state->due += state->interval * state->burst;
}

static __always_inline __u16 fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

static __always_inline int store_check(void *data, void *end, __u32 where, __u16 sum)
{
	__u16 check = ~sum;
	__u16 *field;

	if (where > HEAD - sizeof(*field))
		return -1;
	field = data + where;
	if ((void *)(field + 1) > end)
		return -1;
	*field = check ? check : 0xffff; /* zero says that there is none */
	return 0;
}

SEC("xdp")
int generate(struct xdp_md *context)
{
	void *data = (void *)(long)context->data, *end = (void *)(long)context->data_end;
	struct { __u64 words[HEAD / 8]; } *head = data;
	struct payload *payload, filled = { .mark = MARK };
	__u32 zero = 0, number, where;
	struct state *state = bpf_map_lookup_elem(&states, &zero);
	struct flow *flow;
	__u64 *sequence, sum;

	if (!state || !state->flows || (void *)(head + 1) > end)
		return XDP_ABORTED;
	pace(state);
	number = state->sent % state->flows;
	flow = bpf_map_lookup_elem(&flows, &number);
	sequence = bpf_map_lookup_elem(&sequences, &number);
	if (!flow || !sequence)
		return XDP_ABORTED;
#pragma unroll
	for (int word = 0; word < HEAD / 8; word++)
		head->words[word] = flow->head[word];
	filled.flow = number;
	filled.sequence = *sequence;
	filled.time = bpf_ktime_get_ns();
	where = flow->payload;
	if (where > LONGEST_HEADERS)
		return XDP_ABORTED;
	payload = data + where;
	if ((void *)(payload + 1) > end)
		return XDP_ABORTED;
	*payload = filled;
	/* Words of 32 bits add up to the same as words of 16, once folded. */
	sum = (__u64)filled.mark + filled.flow + (__u32)filled.sequence + (filled.sequence >> 32) +
	      (__u32)filled.time + (filled.time >> 32);
	if (flow->inner_check && store_check(data, end, flow->inner_check, fold(sum + flow->inner_sum)))
		return XDP_ABORTED;
	/* A datagram with its checksum in place adds up to a constant, whatever is in it. */
	if (flow->outer_check &&
	    store_check(data, end, flow->outer_check, fold(flow->outer_sum + (flow->inner_check ? 0 : sum))))
		return XDP_ABORTED;
	*sequence += 1;
	if (!state->sent)
		state->first = filled.time;
	state->last = filled.time;
	state->sent += 1;
	return bpf_redirect(state->interface, 0);
}

const char licence[] SEC("license") = "GPL";
