// Questions to the coordinator. All are relative, so the page works behind a proxy's prefix only at its root.

export async function ask(name, parameters = {}) {
  const query = new URLSearchParams();
  for (const [key, value] of Object.entries(parameters)) {
    if (Array.isArray(value)) value.forEach((one) => query.append(key, one));
    else if (value !== null && value !== undefined) query.set(key, value);
  }
  const response = await fetch(`/api/${name}?${query}`);
  if (!response.ok) throw new Error(await reason(response));
  return response.json();
}

async function reason(response) {
  try {
    const { detail } = await response.json();
    return typeof detail === "string" ? detail : JSON.stringify(detail);
  } catch {
    return `${response.status} ${response.statusText}`;
  }
}
