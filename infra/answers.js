// Runs at the edge for /responses/<id>/<k>.json, before the cache is looked up: finds the file of a short id (q1 for
// q1_capital), picks a variant for random.json, and answers 404 itself, so that S3 is asked for what it has. The
// catalogue is a file as it stands.
// Synth puts the catalogue in: [id or short id, [id, variants]].
var PROMPTS = new Map([]);

function handler(event) {
    var request = event.request;
    if (request.method === 'OPTIONS') {
        return answer(204, 'No Content', {
            'access-control-allow-methods': { value: 'GET, HEAD, OPTIONS' },
            'access-control-allow-headers': { value: 'authorization, *' },
            'access-control-max-age': { value: '600' },
        });
    }
    if (request.uri === '/responses/catalogue.json') {
        return request;
    }
    var parts = /^\/responses\/([^/]+)\/(random|0|[1-9][0-9]*)\.json$/.exec(request.uri);
    var prompt = parts && PROMPTS.get(parts[1]);
    if (!prompt || Number(parts[2]) >= prompt[1]) {
        return notFound(request.uri);
    }
    var variant = parts[2] === 'random' ? Math.floor(Math.random() * prompt[1]) : parts[2];
    request.uri = '/responses/' + prompt[0] + '/' + variant + '.json';
    return request;
}

function notFound(uri) {
    var error = {
        message: 'There is no prepared answer at ' + uri + '.',
        type: 'invalid_request_error',
        param: null,
        code: 'not_found',
    };
    var response = answer(404, 'Not Found', {
        'content-type': { value: 'application/json' },
        'cache-control': { value: 'public, max-age=60' },
    });
    response.body = { encoding: 'text', data: JSON.stringify({ error: error }) };
    return response;
}

function answer(status, description, headers) {
    headers['access-control-allow-origin'] = { value: '*' };
    return { statusCode: status, statusDescription: description, headers: headers };
}
