/* SPDX-License-Identifier: MIT */
#include "recording.h"

#include <errno.h>

int pl_recording_run(struct pl_recording *recording, int64_t until_ns, const volatile int *stop, struct pl_error *err)
{
	return recording->ops->run(recording, until_ns, stop, err);
}

int pl_recording_look(struct pl_recording *recording)
{
	return recording->ops->look ? recording->ops->look(recording) : -ENOTSUP;
}

void pl_recording_retire(struct pl_recording *recording)
{
	if (recording->ops->retire)
		recording->ops->retire(recording);
}

int pl_recording_update(struct pl_recording *recording, struct pl_recording_state *ret)
{
	*ret = (struct pl_recording_state){0};
	return recording->ops->update(recording, ret);
}

void pl_recording_facts(const struct pl_recording *recording, struct pl_recording_facts *ret)
{
	*ret = recording->facts;
}

int64_t pl_recording_stop_ns(const struct pl_recording *recording)
{
	return recording->stop_ns;
}

uint64_t pl_recording_memory(const struct pl_recording *recording)
{
	return recording->ops->memory ? recording->ops->memory(recording) : 0;
}

double pl_recording_rounding(const struct pl_recording *recording, uint32_t alignment)
{
	return recording->ops->rounding ? recording->ops->rounding(recording, alignment) : -1;
}

int pl_recording_finish(struct pl_recording *recording, struct pl_error *err)
{
	return recording->ops->finish(recording, err);
}

void pl_recording_free(struct pl_recording *recording)
{
	if (recording)
		recording->ops->free(recording);
}
